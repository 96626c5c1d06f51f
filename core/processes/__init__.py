"""How processes find, trust, start and outlive each other."""
