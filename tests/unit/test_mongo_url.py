"""What a URL of MongoDB may say, and what Inkstream decides by itself."""

import pytest
from pymongo import ReadPreference

from sinks.mongo.client import Mongo
from sinks.servers import MongoUrlError

SET = "mongodb://127.0.0.1:9/blog?replicaSet=rs0"


@pytest.mark.parametrize(
    "options",
    [
        "",
        "&readPreference=secondaryPreferred",
        "&readPreference=nearest",
        "&w=1&journal=false",
        "&readPreference=secondary&w=0&retryWrites=false",
    ],
)
async def test_views_are_read_from_the_primary_and_written_durably_whatever_the_url_says(options: str) -> None:
    mongo = Mongo.connect(SET + options)
    for using in (mongo.database, mongo.database["pageViews"], mongo.database.client):
        assert using.read_preference == ReadPreference.PRIMARY
        assert using.write_concern.document == {"w": "majority", "j": True}
    await mongo.close()


@pytest.mark.parametrize("option", ["maxStalenessSeconds=120", "readPreferenceTags=dc:east"])
def test_an_option_for_secondaries_alone_is_refused_by_name(option: str) -> None:
    with pytest.raises(MongoUrlError, match=r"cannot be combined with (maxStalenessSeconds|tags)"):
        Mongo.connect(f"{SET}&readPreference=secondaryPreferred&{option}")
