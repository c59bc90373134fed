"""`delegator serve`: run the delegator in the foreground.

Must not live here: composition (serving.app).
"""

from __future__ import annotations

import json
import os
import signal
import sys

import click

from delegator.config import Settings
from pki.streams import Unwritten


@click.command("serve")
@click.option("--host", multiple=True, help="Listen on this address instead of [server] host; can be repeated.")
@click.option("--port", type=click.IntRange(0, 65535), help="Listen on this port; 0 takes a free one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object once it listens: host, port, pid.")
@click.pass_obj
def command(settings: Settings, host: tuple[str, ...], port: int | None, as_json: bool) -> None:
    """Serve devices until SIGTERM or Ctrl-C, which let requests under way finish.

    SIGHUP reads settings, certificates and revocation lists again, and connections that stand go on. A service
    manager is told how we are, and sockets that it opened are served.

    \b
    Example:
      delegator --config delegator.toml serve
    """
    import msgspec

    from delegator.cli import session
    from delegator.clockwork import loop
    from delegator.model.places import authority, url
    from delegator.net.descriptors import raised
    from delegator.net.listening import Unlistenable
    from delegator.secrecy import keep_memory_private
    from delegator.serving import app, validation, workers
    from delegator.watching import logs

    keep_memory_private()
    raised()
    changes = {key: value for key, value in (("host", host or None), ("port", port)) if value is not None}

    source = session.source()._replace(options={("server", key): f"--{key}" for key in changes})

    def changed(settings: Settings) -> Settings:
        said = msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, **changes))
        return validation.judge(said, source)

    path = session.settings_file()
    settings = changed(settings)
    logs.configure(settings.log.level, settings.log.json)

    def ready(listening: app.Listening) -> None:
        print(f"delegator listening on {' and '.join(url(*place) for place in listening.places)}", file=sys.stderr)
        if not as_json:
            return
        first, number = listening.places[0]
        try:
            print(json.dumps({"host": first, "port": number, "pid": os.getpid(), "ops": listening.ops,
                              "workers": listening.workers,
                              "addresses": [authority(*place) for place in listening.places]}), flush=True)
        except Unwritten:  # whoever started it waits for that: end in order, and with the code of what is lost
            signal.raise_signal(signal.SIGTERM)

    serve = app.serve if settings.server.workers == 1 else workers.serve
    try:
        loop.run(serve(settings, ready, lambda: changed(session.read(path))))
    except Unlistenable as error:
        from delegator.cli import checking_ports

        raise checking_ports.by_us(error, settings, source) from None
