"""What fuzzing has found, played once more: inputs of tests/fuzz_venues.py, one file each in corpus/VENUE."""

from pathlib import Path

import pytest

from common.venues import registry
from tests.fuzz_venues import examiner, seeds

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", sorted(registry()))
def test_nothing_that_was_found_breaks_a_venue_again(name, recordings):
    examine = examiner(name)
    for seed in seeds(name, recordings):
        examine(seed)
    for path in sorted(CORPUS.glob(f"{name}/*")):
        examine(path.read_bytes())


def test_every_folder_of_the_corpus_is_of_a_venue():
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= set(registry())
