"""The shells: asyncio around the pure rooms of `wire`. Only here are sockets, deadlines and tasks."""
