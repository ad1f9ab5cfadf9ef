"""The order of the wall, and the letters of a call; tests/integration/test_page_floor.py reads a real Redis."""

from callmood.dashboard.page.floor import _rank, _Said


def test_those_that_need_a_person_most_come_first():
    """By level, then by risk in steps of a tenth, then by id: a small change moves no row."""
    rows = [
        {"id": name, "level": level, "risk": risk}
        for name, level, risk in (
            ("e", "", 0.99), ("d", "some", 0.31), ("b", "high", 0.64), ("a", "high", 0.61), ("c", "some", 0.52),
        )
    ]  # fmt: skip
    assert [row["id"] for row in sorted(rows, key=_rank)] == ["a", "b", "c", "d", "e"]


def test_letters_are_of_roles_that_are_shown_each_once_and_of_the_newest():
    """An utterance that is read again, or is an agent's, leaves none."""
    said = _Said()
    for number, role, label in (
        (1, "customer", "anger"),
        (1, "customer", "anger"),
        (2, "agent", "anger"),
        (3, "mixed", None),
    ):
        said.hear({"number": str(number), "role": role} | ({"label": label} if label else {}))
    assert ("".join(said.letters), said.number) == ("A?", 3)
    for number in range(4, 40):
        said.hear({"number": str(number), "role": "customer", "label": "neutral"})
    assert "".join(said.letters) == "N" * 24
