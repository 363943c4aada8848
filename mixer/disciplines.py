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
    "data analysis, regression, exercises with equations to solve, arithmetic and fractions, prime numbers, groups "
    "and rings and fields, solving equations and inequalities, exponential and logarithmic functions, trigonometric "
    "identities, plane geometry and triangles, conic sections, analytic geometry and vectors, limits and continuity, "
    "derivatives, integrals, complex analysis, proof by induction, permutations and combinations, random variables "
    "and probability distributions, the normal distribution, sampling distributions and the central limit theorem, "
    "p-values, confidence intervals, correlation, analysis of variance, mean and median and standard deviation, "
    "frequency tables and histograms, optimization, numerical analysis, game theory, word problems in algebra",
    "physics": "mechanics and motion, forces and Newton's laws, energy and work, momentum, electricity and circuits, "
    "magnetism, electromagnetic fields, optics and light, waves and sound, heat and thermodynamics, fluids and "
    "pressure, quantum mechanics, relativity, atomic and nuclear physics, particle physics, rotation and torque, "
    "gravity, units and measurement, electromagnetic waves, Maxwell's equations, velocity and acceleration, friction "
    "and drag and elasticity, collisions, statics and equilibrium, fluid statics and buoyancy, fluid dynamics, "
    "temperature and heat transfer, kinetic theory of gases, oscillations, electric charge and electric fields, "
    "electric potential and capacitors, electric current and resistance, magnetic fields and forces, electromagnetic "
    "induction, alternating current and inductance, reflection and refraction and lenses, interference and "
    "diffraction of light, optical instruments, photons and the photoelectric effect, wave functions and the "
    "Schrödinger equation, quantum states and operators, the hydrogen atom, radioactivity, elementary particles, "
    "condensed matter and semiconductors, lasers, plasma physics",
    "chemistry": "atoms and molecules, chemical reactions, acids and bases, chemical bonds, the periodic table, "
    "stoichiometry and moles, organic compounds, electrochemistry, chemical equilibrium, reaction rates, solutions "
    "and concentration, gases, crystals and metals, spectroscopy, polymers, thermochemistry, molecular structure, "
    "molecular orbitals, drug-like molecules and cheminformatics, laboratory titration, elements and isotopes, "
    "chemical nomenclature and formulas, molar mass, balancing chemical equations, electron configurations of atoms, "
    "ionic and covalent bonds, Lewis structures and molecular geometry, intermolecular forces, gas laws, liquids and "
    "solids, enthalpy, entropy and free energy, pH and buffers, solubility and precipitation, oxidation and "
    "reduction, batteries, transition metals and coordination compounds, alloys, nonmetals, hydrocarbons, alcohols "
    "and aldehydes and ketones, aromatic compounds, reaction mechanisms, chromatography and mass spectrometry, "
    "quantum chemistry, computational chemistry, chemical synthesis, chemical engineering",
    "biology": "cells, genes and DNA, evolution, natural selection, plants, animals, ecology and ecosystems, proteins "
    "and enzymes, bacteria and viruses, photosynthesis, phylogenetic trees, genomics and sequencing, reproduction and "
    "development, taxonomy of species, biodiversity, metabolism, heredity, fungi, population genetics, bioinformatics "
    "of sequences, cell structure and organelles, cell membranes and transport, mitosis and meiosis, cellular "
    "respiration, DNA replication, transcription and translation, gene expression, Mendelian inheritance, genetic "
    "engineering, amino acids, biochemistry, speciation, classification of organisms, archaea and protists, roots and "
    "stems and leaves, plant reproduction, invertebrate animals, fishes and amphibians and reptiles, birds, mammals, "
    "animal behaviour, animal physiology, embryonic development, food webs, conservation, marine biology, "
    "microbiology, molecular biology",
    "astronomy": "stars, planets, galaxies, telescopes, the solar system, cosmology, black holes, celestial "
    "coordinates, comets and asteroids, the moon, observing the night sky, redshift, spacecraft and space missions, "
    "the sun, exoplanets, astronomical images, time scales and calendars, the big bang, nebulae, spectra of stars, "
    "eclipses, meteorites, stellar evolution, binary and variable stars, supernovae and neutron stars, the Milky Way, "
    "quasars, dark matter and dark energy, the expanding universe, observatories, radio astronomy, space telescopes, "
    "interstellar medium, history of astronomy, photometry and astronomical data analysis",
    "earth science": "geology, rocks and minerals, climate and climate change, oceans, earthquakes, volcanoes, "
    "weather, soil, groundwater, glaciers, plate tectonics, the atmosphere, geophysical surveys, mineral exploration, "
    "rivers and erosion, fossils and strata, environmental pollution, natural resources and mining, maps of terrain, "
    "sea level, igneous and sedimentary and metamorphic rocks, seismology, geologic time, structural geology and "
    "faults, mineral deposits, petroleum geology, hydrology, sediment, ice ages, coasts and tides, storms, "
    "geochemistry, remote sensing, natural hazards, geomorphology and landforms, physical geography",
    "medicine": "patients, diseases, drugs and pharmacy, anatomy of the human body, treatment, clinical trials, "
    "public health, surgery, diagnosis, bones and muscles, the heart and blood vessels, nerves and the brain, "
    "infection and vaccines, cancer, nursing, electronic health records, epidemiology, digestion and nutrition, "
    "hormones, mental illness, symptoms, pharmacology, the skeleton and joints, muscles of the body, blood, the lungs "
    "and breathing, the digestive system, the kidneys and urinary system, endocrine glands, the nervous system, the "
    "eye and ear, skin, the immune system, pregnancy and childbirth, reproductive health, hospitals, pediatrics, "
    "dentistry, medical imaging, medical ethics, first aid, tissues of the human body, blood pressure, genetic "
    "disorders in patients",
    "computer science": "programming languages, algorithms, data structures, software, computer networks, operating "
    "systems, databases, computational complexity, machine learning, compilers, source code with functions and "
    "classes, web browsers and servers, cryptography and security, application programming interfaces, version "
    "control, command line tools, hardware and processors, graphics, artificial intelligence, software testing, "
    "classes and functions and templates, sorting and searching, automata and formal languages, threads and "
    "concurrency, memory management, the internet, web development, SQL queries, software engineering, debugging, "
    "installing software packages, configuration files, human-computer interaction, neural networks, natural language "
    "processing, robotics, information retrieval, cloud computing, mobile apps, file formats and encodings, open "
    "source licences, input and output of programs",
    "general education": "history, literature, novels and stories, art, music, economics, politics and government, "
    "law, war, religion, philosophy, travel, cities and countries, sport, film and television, food and drink, "
    "education and schools, daily life, famous people, psychology and society, ancient history, kings and queens and "
    "empires, elections and parties, courts and human rights, banking and trade, business and management, advertising "
    "and marketing, labour and employment, sociology, anthropology and cultures, ethics, churches, mythology and "
    "folklore, languages and linguistics, poetry, drama and theatre, biography and memoirs, dialogue between "
    "characters, songs, painting and sculpture, architecture and buildings, photography, games, tourism, universities "
    "and teaching, cooking, beverages, shopping and products, household and hobbies, clothing and fashion, family, "
    "military, railways and ships and roads, journalism and news",
}
"""Name -> the fields that it is made of, after the divisions of library and subject classifications; a head looks at
each of them."""

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
