"""Manifests of bundles that a test changes, by one value or at random."""

import hashlib
import json

REPLACEMENTS = (None, True, -1, 1 << 70, 1.5, "", "x", [], {}, [None], {"a": 1})


def set_value(table, path, value):
    """Sets the value at a path of keys and indices."""
    *above, last = path
    for key in above:
        table = table[key]
    table[last] = value


def damage(table, chance, *, first, deeper):
    """Drops or replaces a value below one of the keys ``first``; ``deeper`` is how likely it goes down."""
    place, key = table, chance.choice(first)
    while isinstance(place[key], dict | list) and place[key] and chance.random() < deeper:
        place = place[key]
        key = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
    if chance.random() < 0.3:
        del place[key]
    else:
        place[key] = chance.choice(REPLACEMENTS)


def write_table(bundle, content):
    """Writes a manifest, as a table or as bytes, with the digest that belongs to it."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (bundle / "manifest.json").write_bytes(data)
    (bundle / "manifest.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  manifest.json\n")


def with_value(bundle, path, value):
    """Changes one value of a bundle's manifest; returns the bundle."""
    table = json.loads((bundle / "manifest.json").read_text())
    set_value(table, path, value)
    write_table(bundle, table)
    return bundle
