"""Text without a meaning, made from word lists: the same for the same seed on every machine."""

import random

_PEOPLE = [
    "the harbour master",
    "the baker",
    "an old sailor",
    "the teacher",
    "the ferry pilot",
    "a young carpenter",
    "the lighthouse keeper",
    "the librarian",
    "a travelling merchant",
    "the doctor",
    "the clockmaker",
    "a fisherman's daughter",
    "the gardener",
    "the postman",
]
_PLACES = [
    "on the quay",
    "behind the market hall",
    "near the stone bridge",
    "in the reading room",
    "beside the boat sheds",
    "at the edge of the orchard",
    "under the arcades",
    "by the old mill",
    "on the hill above the bay",
    "in the narrow lane",
    "outside the town hall",
    "along the canal",
]
_TIMES = [
    "Before sunrise",
    "Late in the evening",
    "On market days",
    "When the fog came in",
    "During the long winter",
    "After the spring tide",
    "At noon",
    "In the first week of autumn",
    "While the bells were ringing",
    "Every other morning",
    "Once the rain had stopped",
]
_DEEDS = [
    "mended a torn net",
    "counted the barrels twice",
    "read aloud from the town's chronicle",
    "painted the door a deep green",
    "wrote down the height of the water",
    "sold apples and honey",
    "spoke about the ships of former years",
    "planted a row of young pear trees",
    "repaired the clock that nobody else dared to open",
    "drew a careful map of the coast",
    "told the children how the bay had looked before the wall was built",
    "carried letters from one end of the town to the other",
    "tuned the strings of a small harp",
]
_REMARKS = [
    "and nobody thought it strange",
    "though the wind made it hard work",
    "because a promise had been made the year before",
    "and the neighbours came to help",
    "until the lamps were lit along the shore",
    "for there was little else to do",
    "so that the work was finished in good time",
    "and took a short rest afterwards",
    "without saying a word about the reason",
    "as their parents had done before them",
]
_ASIDES = [
    "The air smelled of salt and fresh bread.",
    "A grey cat watched from the window sill.",
    "It was a quiet place, and most people liked it that way.",
    "Gulls circled over the roofs and settled again.",
    "The water in the basin lay as still as glass.",
    "Somewhere a hammer struck wood in a steady rhythm.",
    "Visitors often remarked how clean the streets were.",
    "Two boats left the harbour, and only one had its sails set.",
    "Nothing in the town was ever thrown away if it could be mended.",
    "Clouds gathered over the islands in the west.",
]


def prose(words: int, seed: int) -> list[str]:
    """Paragraphs about a harbour town, at least `words` words long; the same for the same seed."""
    rng = random.Random(seed)
    paragraphs: list[str] = []
    count = 0
    while count < words:
        sentences = []
        for _ in range(rng.randint(4, 7)):
            if rng.random() < 0.3:
                sentences.append(rng.choice(_ASIDES))
                continue
            sentences.append(
                f"{rng.choice(_TIMES)} {rng.choice(_PEOPLE)} {rng.choice(_DEEDS)} "
                f"{rng.choice(_PLACES)}, {rng.choice(_REMARKS)}."
            )
        paragraphs.append(" ".join(sentences))
        count += len(paragraphs[-1].split())
    return paragraphs
