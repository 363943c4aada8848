"""What a recipe says of language models and of the text that they write."""

from typing import Annotated, Literal

from pydantic import Field, Strict, StrictBool, StrictInt

from mixer.recipe.section import Count, Name, Section, Share
from mixer.run import digest


class Model(Section):
    """A language model that the recipe's tasks may name."""

    engine: Literal["vllm"] = "vllm"
    path: str | None = None
    """`smollm2` (the packaged model), a folder, or a hub id, served by vLLM; or name an `endpoint` instead."""
    revision: str | None = None
    """Commit, tag or branch on the hub; for an endpoint, any text that changes when its weights do."""
    endpoint: str | None = None
    """URL of a server that speaks OpenAI's protocol, such as `http://127.0.0.1:8000`."""
    name: str | None = None
    """The model's name at the endpoint."""
    key_env: str | None = None
    """Environment variable that holds the endpoint's key; the key itself is written nowhere."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_len: Annotated[StrictInt, Field(ge=256)] | None = None
    """Longest prompt and answer together, in tokens. Default: the model's own."""
    tensor_parallel: Annotated[StrictInt, Field(ge=1)] = 1
    """GPUs that share one copy of the model."""
    data_parallel: Annotated[StrictInt, Field(ge=1)] = 1
    """Copies of the model."""
    eager: StrictBool = False
    """Start a minute sooner and generate some 20% slower: for small runs."""
    arguments: tuple[str, ...] = ()
    """Further arguments of the vLLM server, such as `--quantization=awq`."""

    @property
    def served(self) -> str:
        """Stands for how the model is served, which decides what requests are refused, and for nothing else."""
        return digest([self.endpoint, self.dtype, self.max_model_len, self.arguments])


Votes = Annotated[StrictInt, Field(ge=0, le=64)]


class Verify(Section):
    """What a pair must pass to be accepted. Every verdict is kept, whether it decides or not."""

    votes: Votes = 5
    """Answers that the model gives anew with the page at hand; 0 asks for none."""
    agree: Annotated[StrictInt, Field(ge=0, le=64)] = 4
    """Votes that must give the pair's answer; a yes/no question needs all of them."""
    grounded: StrictBool = True
    """Evidence must be found in the page, and so must the answer's numbers, units and names."""
    support: StrictBool = True
    """Each sentence of a long answer is checked against the page in isolation; a contradiction rejects the pair."""
    novel: StrictBool = False
    """Reject what the model answers alike without the page: nothing new to learn from it."""
    thresholds: dict[Name, Annotated[float, Strict(), Field(ge=0.0, le=1.0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    """Least score of a check, by its name; `mixer synth --calibrate` suggests them."""


class Sampling(Section):
    """How the model draws its words."""

    temperature: Annotated[float, Strict(), Field(ge=0.0, le=5.0, allow_inf_nan=False)] = 0.7
    top_p: Share = 0.95
    max_tokens: Annotated[StrictInt, Field(ge=1)] = 400
    """Longest answer; one that is cut off there is refused."""


QuestionType = Literal["open", "multiple_choice", "yes_no", "numeric", "comparison"]


class Task(Section):
    """What every task has."""

    model: Name
    """One of `models`."""
    sampling: Sampling = Sampling()
    max_pages: Count | None = None
    """Use at most this many pages, chosen by hash."""


WindowChars = Annotated[StrictInt, Field(ge=200)]


class ScienceQa(Task):
    """Questions and answers from a page, in nine disciplines, English and Chinese."""

    window_chars: WindowChars = 4000
    """Longest part of a page in one prompt; cut at sentence ends."""

    grounding: Literal["page", "inspiration"] = "page"
    """`page`: the answer must follow from the page, with evidence. `inspiration`: the page only sets the subject, as
    in Llama-3-SynE; nothing then holds the answer against a source."""
    answers: Literal["extractive", "free"] = "extractive"
    """`extractive`: the answer is words of a passage, chosen by hash, and the model writes the question. `free`: the
    model quotes its evidence, answers, and asks; for models of some billions of parameters."""
    pairs_per_page: Annotated[StrictInt, Field(ge=1, le=64)] = 4
    """Questions asked about a page, each about another passage."""
    tries: Annotated[StrictInt, Field(ge=1, le=16)] = 1
    """Times a question is written anew while a check rejects it; every try is a candidate of its own."""
    question_types: tuple[QuestionType, ...] = ("open", "numeric", "yes_no", "multiple_choice", "comparison")
    discipline: str | None = None
    """Metadata field with the page's discipline. Default: the nearest by sentence embedding."""
    form: Literal["standalone", "append"] = "standalone"
    """Train on the pair alone, or on the page followed by its pairs."""
    demonstrations: Annotated[StrictInt, Field(ge=0, le=8)] = 0
    """Reliable pairs of earlier pages shown to the model; asks for a second round over the pages."""
    verify: Verify = Verify()


class CodeQa(Task):
    """A programming problem from a page, its solution and tests; kept only if the solution passes them."""

    pairs_per_page: Annotated[StrictInt, Field(ge=1, le=64)] = 1
    """Problems asked for from a page, each from another passage."""
    seconds: Annotated[float, Strict(), Field(gt=0.0, le=600.0)] = 5.0
    """Longest run of a solution against its tests."""


class Rephrase(Task):
    """A page in other words: encyclopedic, as questions and answers, or distilled."""

    window_chars: WindowChars = 1500
    """Longest part of a page rewritten at once; longer ones lose content (WRAP, arXiv 2401.16380)."""
    styles: tuple[Literal["encyclopedic", "qa", "distilled"], ...] = ("encyclopedic",)


class Rehearsal(Task):
    """Text that the base model writes by itself, to rehearse what it knows where its training data is not at hand."""


class Synth(Section):
    """Settings of the tasks that `kind: synth` sources name."""

    science_qa: ScienceQa | None = None
    code_qa: CodeQa | None = None
    rephrase: Rephrase | None = None
    replay: Rehearsal | None = None
