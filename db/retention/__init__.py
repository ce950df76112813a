"""How long evidence is kept: the inventory, the policy, removal on record."""
