"""Soft IOCs of the plant: thin groups that map names to the model.

port
    What the IOCs need of a plant (`PlantPort`).
plant_iocs
    `PlantIocs(plant, prefix, clock, keyring)`: `.pvdb`, `.on_events(events)`, `.update(t_ns)`.
ring, line, dose, front_end
    The groups.
outlet
    When a value is worth a PV update.
command_desk
    From the bytes of a command to a result.
"""
