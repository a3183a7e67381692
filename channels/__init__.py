"""How the parts of the facility talk to each other.

protocol
    `Channel`, `ChannelProvider`, `Sample(value, t_ns, severity, status, seq)`, `LinkState`, `Severity`.
memory
    `MemoryProvider(pvdb, loop, seed=..., latency=Latency(put_ns, monitor_ns, jitter_ns))`: PVs of a pvdb in
    memory, in virtual time.
epics_bridge
    `configure_libca(["127.0.0.1:5064", ...])` before the first use, then `EpicsProvider(clock)`.
caproto_server
    `async with serve(pvdb, clock=...) as server: server.port`.
publish
    `publish(channel, value, t_ns, severity=None)`, `run_sync(coroutine)`.
command
    `Signer`, `Command`, `CommandResult`. `command_server`: `CommandVerifier`.
keys
    `KeyRing`, `derived_private_key(seed, issuer)`, `random_private_key(entropy)`.
keepalive
    `KeepAliveMaker`, `check(state, frame, now_ns) -> (state, Beat | Rejected)`.
command_client
    `CommandClient(cmd, result, signer, clock).call(verb, args, timeout_s) -> CommandResult`.
frames
    `make_link`, `send(state, kind, payload, echo, t_ns) -> (state, frame)`, `listening`, `receive(state, frame,
    now_ns) -> (state, Accepted | Rejected)`, `expired`, `watch`, `link_ok`, `resync`: pure functions.
datagram, memory_link
    Carriers of frames: UDP on loopback, and in memory with link faults. `wire_faults`: what may befall a frame.
"""
