"""`python -m launchers` is `ebbtide`, for places where the console script is not installed."""

from launchers.entry import main

main()
