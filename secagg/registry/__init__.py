"""Who is enrolled: names of identities, and the signed, versioned document that they come from."""

from secagg.registry.chain import check_chain, check_first, check_successor
from secagg.registry.changes import Change, ChangeKind, changes
from secagg.registry.document import Former, Party, RegistryDocument, Role, State, parse_roles
from secagg.registry.editing import (
    Rotation,
    enrol,
    found,
    hand_over,
    replace_identity,
    revoke,
    rotation,
    set_roles,
)
from secagg.registry.errors import (
    CountersignatureError,
    DocumentError,
    DocumentSignatureError,
    ForkError,
    GapError,
    IdentityChangedError,
    OtherFederationError,
    PartyHistoryError,
    RevokedReturnedError,
    RollbackError,
    WrongOperatorError,
)
from secagg.registry.file import RegistryFile, dump, load, parse
from secagg.registry.kept import KeptRegistry, accept_file, follow_file
from secagg.registry.names import Registry, check_name
from secagg.registry.witnesses import countersign, demand, merged

__all__ = [
    "Change",
    "ChangeKind",
    "CountersignatureError",
    "DocumentError",
    "DocumentSignatureError",
    "ForkError",
    "Former",
    "GapError",
    "IdentityChangedError",
    "KeptRegistry",
    "OtherFederationError",
    "Party",
    "PartyHistoryError",
    "Registry",
    "RegistryDocument",
    "RegistryFile",
    "RevokedReturnedError",
    "Role",
    "RollbackError",
    "Rotation",
    "State",
    "WrongOperatorError",
    "accept_file",
    "changes",
    "check_chain",
    "check_first",
    "check_name",
    "check_successor",
    "countersign",
    "demand",
    "dump",
    "enrol",
    "follow_file",
    "found",
    "hand_over",
    "load",
    "merged",
    "parse",
    "parse_roles",
    "replace_identity",
    "revoke",
    "rotation",
    "set_roles",
]
