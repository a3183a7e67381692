"""Plans: read them, make them, check them against a facility, compile them into a machine program."""
