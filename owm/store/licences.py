"""Licences in plain words: what each permits, from a table of the ids that the Hub and model files use.

This is a reading aid, no legal advice: the text of the licence counts. What is not in the table is said to be unknown,
never guessed from its name.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

Permission = Literal["yes", "no", "conditions"]


@dataclass(frozen=True, slots=True)
class Licence:
    """What a licence permits.

    Attributes:
        commercial, changes, sharing: whether it may be used to earn money, changed, and passed on.
        commercial_terms, sharing_terms: on which conditions, words that go on a `yes` or `no`.
        naming: what things made with the model have to be called, or have to say.
        limits: uses that are forbidden, or people to whom nothing is granted.
    """

    id: str
    title: str
    commercial: Permission
    changes: Permission
    sharing: Permission
    commercial_terms: str | None = None
    changes_terms: str | None = None
    sharing_terms: str | None = None
    naming: str | None = None
    limits: str | None = None

    @property
    def is_free(self) -> bool:
        """Whether it permits everything to everybody, with terms for passing on alone."""
        return (self.commercial, self.changes, self.sharing) == ("yes",) * 3 and not (self.naming or self.limits)

    def lines(self) -> dict[str, str]:
        """Return what it permits, one line a subject."""
        found = {
            "commercial use": _answer(self.commercial, self.commercial_terms),
            "changes": _answer(self.changes, self.changes_terms),
            "passing on": _answer(self.sharing, self.sharing_terms),
        }
        return found | {k: v for k, v in (("naming", self.naming), ("limits", self.limits)) if v}

    def sentence(self) -> str:
        """Return all of it as one sentence: `any use, changes, and passing on with the licence and its notices`."""
        sharing = f"passing on {self.sharing_terms}" if self.sharing_terms else "passing on"
        if self.is_free:
            return f"any use, changes, and {sharing}"
        parts = [
            _clause("commercial use", self.commercial, self.commercial_terms),
            _clause("changes", self.changes, self.changes_terms),
            sharing if self.sharing == "yes" else _clause("passing on", self.sharing, self.sharing_terms),
            self.naming,
            self.limits,
        ]
        return "; ".join(part for part in parts if part)

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "id": self.id,
            "title": self.title,
            "commercial_use": self.commercial,
            "changes": self.changes,
            "sharing": self.sharing,
            "terms": self.sentence(),
        }


def _answer(permission: Permission, terms: str | None) -> str:
    if permission == "conditions" and terms:
        return terms
    word = {"yes": "yes", "no": "no", "conditions": "on conditions"}[permission]
    return f"{word}, {terms}" if terms else word


def _clause(subject: str, permission: Permission, terms: str | None) -> str:
    if permission == "conditions":
        return f"{subject} {terms or 'on conditions'}"
    words = f"{subject} allowed" if permission == "yes" else f"no {subject}"
    return f"{words}, {terms}" if terms else words


_NOTICES = "with the licence and its notices"
_TERMS = "with the same terms and notices"
_RAIL_LIMITS = "a list of forbidden uses, which has to be passed on"
_POLICY = "an acceptable use policy"
_RESEARCH = "only research and other use that earns nothing"


def _free(key: str, title: str, sharing_terms: str | None = _NOTICES) -> Licence:
    return Licence(key, title, "yes", "yes", "yes", sharing_terms=sharing_terms)


def _copyleft(key: str, title: str, *, network: bool = False) -> Licence:
    terms = "with the source, under the same licence"
    return Licence(
        key,
        title,
        "yes",
        "yes",
        "yes",
        sharing_terms=f"{terms}; a service over the network counts" if network else terms,
    )


def _research(
    key: str,
    title: str,
    *,
    sharing: Permission = "yes",
    sharing_terms: str | None = "on the same terms",
    naming: str | None = None,
    limits: str | None = None,
) -> Licence:
    terms = _RESEARCH
    return Licence(
        key,
        title,
        "no",
        "yes",
        sharing,
        commercial_terms=terms,
        sharing_terms=sharing_terms,
        naming=naming,
        limits=limits,
    )


def _rail(key: str, title: str) -> Licence:
    return Licence(key, title, "yes", "yes", "yes", sharing_terms=_TERMS, limits=_RAIL_LIMITS)


def _llama(key: str, title: str, *, naming: str | None, limits: str) -> Licence:
    return Licence(
        key,
        title,
        "conditions",
        "yes",
        "yes",
        commercial_terms="not for services that had more than 700 million users a month when it came out",
        sharing_terms="with the agreement and its notice",
        naming=naming,
        limits=limits,
    )


_NO_OTHER_MODELS = "its output must not improve other language models"
_NOT_EU = "its multimodal models are not licensed to people and companies of the EU"
_LLAMA_NAMES = "models made with it begin with `Llama`, products say `Built with Llama`"

_TABLE = (
    _free("apache-2.0", "Apache License 2.0", "with the licence, its notices and a word on what was changed"),
    _free("mit", "MIT License"),
    _free("mit-0", "MIT No Attribution", None),
    _free("bsd-2-clause", "BSD 2-Clause License"),
    _free("bsd-3-clause", "BSD 3-Clause License"),
    Licence(
        "bsd-3-clause-clear", "BSD 3-Clause Clear License", "yes", "yes", "yes", sharing_terms=_NOTICES,
        limits="it grants no patents",
    ),
    _free("bsd", "a BSD licence"),
    _free("isc", "ISC License"),
    _free("zlib", "zlib License"),
    _free("ncsa", "NCSA Open Source License"),
    _free("afl-3.0", "Academic Free License 3.0"),
    _free("bsl-1.0", "Boost Software License 1.0"),
    _free("postgresql", "PostgreSQL License"),
    _free("ecl-2.0", "Educational Community License 2.0"),
    _free("artistic-2.0", "Artistic License 2.0"),
    _free("ms-pl", "Microsoft Public License"),
    _free("unlicense", "The Unlicense (public domain)", None),
    _free("wtfpl", "Do What The F*ck You Want To Public License", None),
    _free("cc0-1.0", "Creative Commons Zero (public domain)", None),
    _free("pddl", "Public Domain Dedication and License", None),
    _free("cdla-permissive-1.0", "CDLA Permissive 1.0"),
    _free("cdla-permissive-2.0", "CDLA Permissive 2.0", "with the text of the licence"),
    _free("odc-by", "ODC Attribution License", "naming where it is from"),
    _free("cc-by-2.0", "Creative Commons Attribution 2.0", "naming the authors and what was changed"),
    _free("cc-by-2.5", "Creative Commons Attribution 2.5", "naming the authors and what was changed"),
    _free("cc-by-3.0", "Creative Commons Attribution 3.0", "naming the authors and what was changed"),
    _free("cc-by-4.0", "Creative Commons Attribution 4.0", "naming the authors and what was changed"),
    _free("cc-by-sa-3.0", "Creative Commons Attribution-ShareAlike 3.0", "naming the authors, under the same licence"),
    _free("cc-by-sa-4.0", "Creative Commons Attribution-ShareAlike 4.0", "naming the authors, under the same licence"),
    _copyleft("gpl", "a GNU General Public License"),
    _copyleft("gpl-2.0", "GNU General Public License 2.0"),
    _copyleft("gpl-3.0", "GNU General Public License 3.0"),
    _copyleft("agpl-3.0", "GNU Affero General Public License 3.0", network=True),
    _copyleft("lgpl", "a GNU Lesser General Public License"),
    _copyleft("lgpl-2.1", "GNU Lesser General Public License 2.1"),
    _copyleft("lgpl-3.0", "GNU Lesser General Public License 3.0"),
    _copyleft("mpl-2.0", "Mozilla Public License 2.0"),
    _copyleft("epl-1.0", "Eclipse Public License 1.0"),
    _copyleft("epl-2.0", "Eclipse Public License 2.0"),
    _copyleft("osl-3.0", "Open Software License 3.0", network=True),
    _copyleft("eupl-1.1", "European Union Public License 1.1"),
    _copyleft("eupl-1.2", "European Union Public License 1.2", network=True),
    _research("cc-by-nc-2.0", "Creative Commons Attribution-NonCommercial 2.0", sharing_terms="naming the authors"),
    _research("cc-by-nc-3.0", "Creative Commons Attribution-NonCommercial 3.0", sharing_terms="naming the authors"),
    _research("cc-by-nc-4.0", "Creative Commons Attribution-NonCommercial 4.0", sharing_terms="naming the authors"),
    _research(
        "cc-by-nc-sa-3.0", "Creative Commons Attribution-NonCommercial-ShareAlike 3.0",
        sharing_terms="naming the authors, under the same licence",
    ),
    _research(
        "cc-by-nc-sa-4.0", "Creative Commons Attribution-NonCommercial-ShareAlike 4.0",
        sharing_terms="naming the authors, under the same licence",
    ),
    Licence(
        "cc-by-nd-4.0", "Creative Commons Attribution-NoDerivatives 4.0", "yes", "conditions", "yes",
        changes_terms="only for yourself, what was changed must not be passed on",
        sharing_terms="unchanged, naming the authors",
    ),
    Licence(
        "cc-by-nc-nd-4.0", "Creative Commons Attribution-NonCommercial-NoDerivatives 4.0", "no", "conditions", "yes",
        commercial_terms=_RESEARCH, changes_terms="only for yourself, what was changed must not be passed on",
        sharing_terms="unchanged, naming the authors",
    ),
    _rail("openrail", "an Open RAIL licence"),
    _rail("openrail++", "CreativeML Open RAIL++-M"),
    _rail("creativeml-openrail-m", "CreativeML Open RAIL-M"),
    _rail("bigscience-openrail-m", "BigScience Open RAIL-M"),
    _rail("bigscience-bloom-rail-1.0", "BigScience RAIL 1.0"),
    _rail("bigcode-openrail-m", "BigCode Open RAIL-M"),
    _rail("deepseek", "DeepSeek Model License"),
    _llama(
        "llama2", "Llama 2 Community License", naming=None, limits=f"{_POLICY}; {_NO_OTHER_MODELS}",
    ),
    _llama(
        "llama3", "Llama 3 Community License",
        naming="models made with it begin with `Llama 3`, products say `Built with Meta Llama 3`",
        limits=f"{_POLICY}; {_NO_OTHER_MODELS}",
    ),
    _llama("llama3.1", "Llama 3.1 Community License", naming=_LLAMA_NAMES, limits=_POLICY),
    _llama("llama3.2", "Llama 3.2 Community License", naming=_LLAMA_NAMES, limits=f"{_POLICY}; {_NOT_EU}"),
    _llama("llama3.3", "Llama 3.3 Community License", naming=_LLAMA_NAMES, limits=_POLICY),
    _llama("llama4", "Llama 4 Community License", naming=_LLAMA_NAMES, limits=f"{_POLICY}; {_NOT_EU}"),
    Licence(
        "gemma", "Gemma Terms of Use", "yes", "yes", "yes", sharing_terms="with the same terms and a notice",
        limits="a list of forbidden uses, to be passed on with it; models distilled from its output fall under it too",
    ),
    Licence(
        "health-ai-developer-foundations", "Health AI Developer Foundations terms", "yes", "yes", "yes",
        sharing_terms="with the same terms and a notice",
        limits="a list of forbidden uses; clinical use only where the authorities have approved it",
    ),
    Licence(
        "qwen", "Qwen License Agreement", "conditions", "yes", "yes",
        commercial_terms="not for products with more than 100 million users a month",
        sharing_terms="with the agreement and its notice",
        naming="models made with it say `Built with Qwen` or `Improved using Qwen`",
    ),
    Licence(
        "tongyi-qianwen", "Tongyi Qianwen License Agreement", "conditions", "yes", "yes",
        commercial_terms="not for products with more than 100 million users a month",
        sharing_terms="with the agreement and its notice",
        limits=_NO_OTHER_MODELS,
    ),
    _research(
        "qwen-research", "Qwen Research License Agreement", sharing_terms="with the agreement and its notice",
        naming="models made with it say `Built with Qwen` or `Improved using Qwen`",
    ),
    _research("mrl", "Mistral AI Research License", sharing_terms="with the licence and its notice"),
    Licence(
        "mnpl", "Mistral AI Non-Production License", "no", "yes", "yes",
        commercial_terms="only research, tests and other use that earns nothing",
        sharing_terms="with the licence and its notice",
    ),
    Licence(
        "nvidia-open-model-license", "NVIDIA Open Model License", "yes", "yes", "yes",
        sharing_terms="with the agreement and its notice",
        limits="it ends when safeguards are removed without putting like ones in their place",
    ),
    Licence(
        "lfm1.0", "LFM Open License 1.0", "conditions", "yes", "yes",
        commercial_terms="not for companies that take in 10 million dollars a year or more",
        sharing_terms=_NOTICES,
    ),
    Licence(
        "falcon-llm-license", "TII Falcon LLM License", "yes", "yes", "yes", sharing_terms="with the licence",
        naming="what is made with it says that it uses Falcon LLM technology of the Technology Innovation Institute",
        limits=_POLICY,
    ),
    Licence(
        "falcon-180b", "Falcon 180B TII License", "conditions", "yes", "yes",
        commercial_terms="not as a service that is hosted for others",
        sharing_terms="with the licence", limits=_POLICY,
    ),
    Licence(
        "stabilityai-ai-community", "Stability AI Community License", "conditions", "yes", "yes",
        commercial_terms="only for those who take in less than 1 million dollars a year",
        sharing_terms="with the agreement and its notice", naming="products say `Powered by Stability AI`",
        limits=_POLICY,
    ),
    Licence(
        "jamba-open-model-license", "Jamba Open Model License", "conditions", "yes", "yes",
        commercial_terms="only for those who take in less than 50 million dollars a year",
        sharing_terms="with the licence and its notice", limits=_POLICY,
    ),
    Licence(
        "tencent-hunyuan-community", "Tencent Hunyuan Community License", "conditions", "yes", "yes",
        commercial_terms="not for services that had more than 100 million users a month when it came out",
        sharing_terms="with the agreement and its notice",
        limits=f"not licensed in the EU, the United Kingdom and South Korea; {_POLICY}; {_NO_OTHER_MODELS}",
    ),
    _research(
        "exaone", "EXAONE AI Model License (NC)", naming="models made with it begin with `EXAONE`",
        limits="it must not be used to make models that compete with it, nor be taken apart",
    ),
    _research("apple-amlr", "Apple Machine Learning Research Model License", sharing_terms="with the licence"),
    _research("fair-noncommercial-research-license", "FAIR Noncommercial Research License", limits=_POLICY),
    _research("intel-research", "Intel Research Use License"),
)  # fmt: skip

_ALSO = {
    "apache": "apache-2.0", "apache2": "apache-2.0", "apache2.0": "apache-2.0", "apache-license-2.0": "apache-2.0",
    "apache-2": "apache-2.0", "mit-license": "mit", "the-mit-license": "mit",
    "cc0": "cc0-1.0", "cc-by": "cc-by-4.0", "bloom-rail-1.0": "bigscience-bloom-rail-1.0",
    "llama-2": "llama2", "llama-3": "llama3", "llama-3.1": "llama3.1", "llama-3.2": "llama3.2",
    "llama-3.3": "llama3.3", "llama-4": "llama4",
    "llama2-community-license": "llama2", "llama-2-community-license": "llama2",
    "llama3-community-license": "llama3", "meta-llama-3-community-license": "llama3",
    "llama-3-community-license": "llama3", "llama-3.1-community-license": "llama3.1",
    "llama-3.2-community-license": "llama3.2", "llama-3.3-community-license": "llama3.3",
    "llama-4-community-license": "llama4", "llama-4-community-license-agreement": "llama4",
    "gemma-terms-of-use": "gemma", "qwen-license-agreement": "qwen", "qwen-license": "qwen",
    "tongyi-qianwen-license-agreement": "tongyi-qianwen", "qwen-research-license-agreement": "qwen-research",
    "qwen-research-license": "qwen-research", "deepseek-license": "deepseek", "deepseek-license-agreement": "deepseek",
    "mistral-ai-research-license": "mrl", "mrl-0.1": "mrl", "mnpl-0.1": "mnpl",
    "mistral-ai-non-production-license": "mnpl", "nvidia-open-model-license-agreement": "nvidia-open-model-license",
    "lfm-open-license-v1.0": "lfm1.0",
    "falcon-llm": "falcon-llm-license", "tii-falcon-llm-license": "falcon-llm-license",
    "falcon-180b-tii-license": "falcon-180b", "stability-ai-community-license": "stabilityai-ai-community",
    "jamba": "jamba-open-model-license", "tencent-hunyuan": "tencent-hunyuan-community",
    "hai-def": "health-ai-developer-foundations", "cc-by-nc": "cc-by-nc-4.0",
    "gplv3": "gpl-3.0", "gpl-3": "gpl-3.0", "agplv3": "agpl-3.0", "agpl-3": "agpl-3.0",
}  # fmt: skip

LICENCES = {licence.id: licence for licence in _TABLE}


def find(name: str | None) -> Licence | None:
    """Return the licence of an id or a title, None if it is not in the table."""
    if not name:
        return None
    key = re.sub(r"[\s_]+", "-", name.strip().lower())
    key = _ALSO.get(key, key)
    if key in LICENCES:
        return LICENCES[key]
    titled = (each for each in _TABLE if re.sub(r"\s+", "-", each.title.lower()) == key)
    return next(titled, None)


def say(name: str | None, link: str | None = None) -> str:
    """Say a licence in one sentence: its name, and what it permits as far as is known; `link` leads to its text."""
    where = f" at {link}" if link else ""
    if not name:
        return "not stated, so nothing is known to be permitted"
    licence = find(name)
    if licence is not None:
        return f"{licence.title}: {licence.sentence()}"
    if name.lower() in ("other", "unknown"):
        return f"one that the model's page names no further: read it{where or ' there'} before you use the model"
    return f"{name}: unknown to owm, read it{where} before you use the model"
