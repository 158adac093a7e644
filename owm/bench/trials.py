"""What the search for a tuning measures with: contexts over one model, a few of which stay open."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from owm.bench.case import Case, Subject
from owm.bench.measure import Workload, open_workload
from owm.bench.tune import Speed, Work
from owm.engine.tuning import Tuning

if TYPE_CHECKING:
    from owm.engine.model import Model

MAX_OPEN = 6  # contexts, each of which has buffers of its own


class Trials:
    """Measures tunings; an `owm.bench.tune.Measure`. Close it, or use it in a `with` statement."""

    def __init__(self, subject: Subject, open_model: "Callable[[int | None], Model]") -> None:
        """Take what is measured, and how it is opened with so many layers on the GPU."""
        self._subject = subject
        self._open_model = open_model
        self._model: Model | None = None
        self._n_gpu_layers: int | None = None
        self._open: OrderedDict[tuple[Tuning, Work], tuple[Workload, ExitStack]] = OrderedDict()

    def __enter__(self) -> "Trials":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, tuning: Tuning, work: Work) -> Speed:
        """Do some work once; see `owm.bench.tune.Measure`."""
        sample = self._workload(tuning, work).measure()
        if work.n_parallel > 1 or not work.n_prompt:
            return Speed(None, sample.per_second)
        assert sample.first_seconds is not None
        rest = sample.seconds - sample.first_seconds
        return Speed(work.n_prompt / sample.first_seconds, work.n_answer / rest if work.n_answer else None)

    def model(self, n_gpu_layers: int | None) -> "Model":
        """Return the model with so many layers on the GPU; with others, it is opened anew."""
        if self._model is None or n_gpu_layers != self._n_gpu_layers:
            self.close()
            self._model = self._open_model(n_gpu_layers)
            self._n_gpu_layers = n_gpu_layers
        return self._model

    def close(self) -> None:
        """Free the contexts and the model."""
        while self._open:
            _, (_, stack) = self._open.popitem()
            stack.close()
        if self._model is not None:
            self._model.close()
            self._model = None

    def _workload(self, tuning: Tuning, work: Work) -> Workload:
        model = self.model(tuning.n_gpu_layers)
        key = (tuning, work)
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key][0]
        while len(self._open) >= MAX_OPEN:
            _, (_, oldest) = self._open.popitem(last=False)
            oldest.close()
        n_prompt = work.n_prompt if work.n_parallel == 1 else 0
        case = Case(self._subject, n_prompt, work.n_answer, tuning=tuning, n_parallel=work.n_parallel)
        with ExitStack() as stack:
            workload = stack.enter_context(open_workload(model, case))
            workload.warm_up()
            self._open[key] = (workload, stack.pop_all())
        return workload
