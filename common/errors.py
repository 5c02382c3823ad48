"""Every error this project raises on purpose, as one tree.

    AlphaError
    ├── ConfigError        the configuration or a command line is wrong: ours to mend
    ├── ContractError      one part of this system broke its contract with another
    │   ├── LayoutError        a shared-memory block is not laid out as expected
    │   ├── WireError          a message on a link cannot be decoded
    │   ├── ModelError         a model does not fit this pipeline
    │   └── LifeCycleError     an order was asked to make an illegal transition
    ├── VenueError         the venue sent something that its protocol does not allow: theirs
    ├── ResourceError      the machine refused: memory, disk, port, permission
    └── InstanceError      another process already holds what only one may hold

Each error is built from three parts, said in this order: what happened, where (field and value),
and what to do. `exit_code` is what a command returns; the codes are stable.
"""


class AlphaError(Exception):
    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        text = self.what
        if self.where:
            text += f" ({self.where})"
        if self.remedy:
            text += f": {self.remedy}"
        return text


class ConfigError(AlphaError):
    exit_code = 2


class ContractError(AlphaError):
    exit_code = 3


class LayoutError(ContractError):
    pass


class WireError(ContractError):
    pass


class ModelError(ContractError):
    pass


class LifeCycleError(ContractError):
    pass


class VenueError(AlphaError):
    exit_code = 4


class ResourceError(AlphaError):
    exit_code = 5


class InstanceError(AlphaError):
    exit_code = 6
