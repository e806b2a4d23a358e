"""Where records come from: one module a kind of event source, all behind one small protocol.

:func:`source_of` chooses by the ARN that the mapping names.
"""

from consumers.runtime.sources.choice import Clients, source_of
from consumers.runtime.sources.source import Read, ShardReader, Source, SourceError, from_client_error

__all__ = ["Clients", "Read", "ShardReader", "Source", "SourceError", "from_client_error", "source_of"]
