"""`python -m metarobust` is the command `metarobust`."""

from metarobust.cli import main

raise SystemExit(main())
