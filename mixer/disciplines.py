"""The nine disciplines of Llama-3-SynE (arXiv 2407.18743), and which of them a page belongs to."""

from collections.abc import Sequence

from mixer.embed import Encoder

NAMES = {
    "mathematics": ("数学", "mathematics: algebra, calculus, geometry, probability, statistics, proofs, equations"),
    "physics": ("物理", "physics: mechanics, energy, electricity, magnetism, optics, waves, quantum theory"),
    "chemistry": ("化学", "chemistry: atoms, molecules, reactions, acids, bonds, elements, compounds"),
    "biology": ("生物", "biology: cells, genes, evolution, plants, animals, ecology, proteins"),
    "astronomy": ("天文", "astronomy: stars, planets, galaxies, telescopes, the solar system, cosmology"),
    "earth science": ("地球科学", "earth science: geology, rocks, climate, oceans, earthquakes, weather, soil"),
    "medicine": ("医学", "medicine: patients, diseases, drugs, anatomy, treatment, clinical studies, health"),
    "computer science": ("计算机科学", "computer science: programs, algorithms, data structures, software, networks"),
    "general education": ("通识", "general knowledge: history, literature, art, economics, society, daily life"),
}
"""Name -> its Chinese name, and a description for the sentence encoder."""

DEFAULT = "general education"
"""Of a page about which nothing is known."""
_HEAD_CHARS = 1500


def shown(discipline: str, language: str) -> str:
    """The discipline's name in the language of the prompt."""
    return NAMES[discipline][0] if language == "zh" and discipline in NAMES else discipline


def nearest(texts: Sequence[str], encoder: Encoder) -> list[str]:
    """For each text the discipline whose description lies nearest to its beginning, by sentence embedding.

    The packaged encoder knows English; what it says of other languages is close to chance.
    """
    if not texts:
        return []
    names = list(NAMES)
    described = encoder.embed([description for _, description in NAMES.values()])
    scores = encoder.embed([text[:_HEAD_CHARS] for text in texts]) @ described.T
    return [names[i] for i in scores.argmax(axis=1).tolist()]
