"""The list of defences keeps up with the source."""

import ast

import pytest

from tests.attacks.defence import Defence
from tests.attacks.defences import DEFENCES


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda defence: defence.name)
def test_a_defence_is_in_the_source_once_and_the_rest_compiles_without_it(defence: Defence) -> None:
    ast.parse(defence.removed())


def test_defences_have_names_of_their_own() -> None:
    names = [defence.name for defence in DEFENCES]
    assert len(set(names)) == len(names)
