#!/usr/bin/env python3
"""Writes the Grafana dashboards of deploy/grafana/, whose contents are in dashboards/.

    tools/make_dashboards.py [FOLDER]      default: deploy/grafana

Every query is run against a real server's series by tests/integration/test_boards.py.
"""

import json
import pathlib
import sys

from dashboards import experiments, overview, recipes

BOARDS = {"overview": overview, "recipes": recipes, "experiments": experiments}


def main():
    default = pathlib.Path(__file__).resolve().parent.parent / "deploy" / "grafana"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in BOARDS.items():
        with open(folder / f"{name}.json", "w", encoding="utf-8") as file:
            json.dump(module.board(), file, indent=1, ensure_ascii=False)
            file.write("\n")


if __name__ == "__main__":
    main()
