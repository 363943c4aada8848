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

FIELDS = {
    "mathematics": "algebra, calculus, geometry, trigonometry, number theory, probability, statistics and hypothesis "
    "tests, graph theory, combinatorics and counting, logic and proofs, set theory, functions and their graphs, "
    "polynomials, matrices and linear algebra, differential equations, sequences and series, topology, sampling and "
    "data analysis, regression, exercises with equations to solve",
    "physics": "mechanics and motion, forces and Newton's laws, energy and work, momentum, electricity and circuits, "
    "magnetism, electromagnetic fields, optics and light, waves and sound, heat and thermodynamics, fluids and "
    "pressure, quantum mechanics, relativity, atomic and nuclear physics, particle physics, rotation and torque, "
    "gravity, units and measurement, electromagnetic waves, Maxwell's equations",
    "chemistry": "atoms and molecules, chemical reactions, acids and bases, chemical bonds, the periodic table, "
    "stoichiometry and moles, organic compounds, electrochemistry, chemical equilibrium, reaction rates, solutions "
    "and concentration, gases, crystals and metals, spectroscopy, polymers, thermochemistry, molecular structure, "
    "molecular orbitals, drug-like molecules and cheminformatics, laboratory titration",
    "biology": "cells, genes and DNA, evolution, natural selection, plants, animals, ecology and ecosystems, proteins "
    "and enzymes, bacteria and viruses, photosynthesis, phylogenetic trees, genomics and sequencing, reproduction and "
    "development, taxonomy of species, biodiversity, metabolism, heredity, fungi, population genetics, bioinformatics "
    "of sequences",
    "astronomy": "stars, planets, galaxies, telescopes, the solar system, cosmology, black holes, celestial "
    "coordinates, comets and asteroids, the moon, observing the night sky, redshift, spacecraft and space missions, "
    "the sun, exoplanets, astronomical images, time scales and calendars, the big bang, nebulae, spectra of stars",
    "earth science": "geology, rocks and minerals, climate and climate change, oceans, earthquakes, volcanoes, "
    "weather, soil, groundwater, glaciers, plate tectonics, the atmosphere, geophysical surveys, mineral exploration, "
    "rivers and erosion, fossils and strata, environmental pollution, natural resources and mining, maps of terrain, "
    "sea level",
    "medicine": "patients, diseases, drugs and pharmacy, anatomy of the human body, treatment, clinical trials, public "
    "health, surgery, diagnosis, bones and muscles, the heart and blood vessels, nerves and the brain, infection and "
    "vaccines, cancer, nursing, electronic health records, epidemiology, digestion and nutrition, hormones, mental "
    "illness",
    "computer science": "programming languages, algorithms, data structures, software, computer networks, operating "
    "systems, databases, computational complexity, machine learning, compilers, source code with functions and "
    "classes, web browsers and servers, cryptography and security, application programming interfaces, version "
    "control, command line tools, hardware and processors, graphics, artificial intelligence, software testing",
    "general education": "history, literature, novels and stories, art, music, economics, politics and government, "
    "law, war, religion, philosophy, travel, cities and countries, sport, film and television, food and drink, "
    "education and schools, daily life, famous people, psychology and society",
}
"""Name -> the fields that it is made of, for a head that looks at each of them."""

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
