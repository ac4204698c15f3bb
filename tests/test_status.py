"""Statuses: one table, told alike by the enumeration, its help and the docs."""

from pathlib import Path

from gradiator_np import Status


def table():
    """What ``docs/status.md`` says of the members."""
    lines = ["| `status` | int | what it means | what to do |", "|" + "---|" * 4]
    lines += [f"| `{s}` | {s.code} | {s.__doc__} | {s.remedy} |" for s in Status]
    return "\n".join(lines)


def test_the_docs_hold_the_table_of_statuses():
    text = (Path(__file__).parents[1] / "docs" / "status.md").read_text()
    assert table() in text, f"docs/status.md should hold\n\n{table()}"


def test_help_tells_every_status():
    for status in Status:
        assert f'{status.name} = "{status}", {status.code}' in Status.__doc__
        assert f"{status.__doc__}\n        To do: {status.remedy}" in Status.__doc__


def test_codes_are_those_of_one_status_each():
    assert len({status.code for status in Status}) == len(Status)
    assert [s for s in Status if s.success] == [s for s in Status if s.code > 0]
