"""The MongoDB database as one installation sees it: its namespace begins the name of each collection.

Input: the declared name of a collection. Output: the collection, as `staging.pageViews`; without a namespace,
`pageViews`.
"""

from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

DEFAULT_DATABASE = "blog-platform"


class NamespacedDatabase(AsyncDatabase[dict[str, Any]]):
    """A database whose collections are looked up by their declared names.

    What takes names otherwise, as `command` and `list_collection_names`, has those of the server: see `name_of`.

    Args:
        client: MongoDB's client.
        namespace: `INKSTREAM_NAMESPACE`.
    """

    def __init__(self, client: AsyncMongoClient[dict[str, Any]], namespace: str) -> None:
        self.namespace = namespace
        super().__init__(client, client.get_default_database(DEFAULT_DATABASE).name)

    def name_of(self, declared: str) -> str:
        """Return a collection's name on the server."""
        return self.namespace + declared

    @property
    def server_names(self) -> AsyncDatabase[dict[str, Any]]:
        """The same database, with collections by their names on the server."""
        return self.client[self.name]

    def __getitem__(self, name: str) -> AsyncCollection[dict[str, Any]]:
        """Return a collection by its declared name."""
        return super().__getitem__(self.name_of(name))

    def get_collection(self, name: str, *args: Any, **options: Any) -> AsyncCollection[dict[str, Any]]:
        """Return a collection by its declared name, with options."""
        # By `$cmd` PyMongo sends commands to the database itself.
        return super().get_collection(name if name.startswith("$") else self.name_of(name), *args, **options)
