"""How people write policy: the kind Policy, what it becomes, and tests of it. Pure: no servers, no store."""
