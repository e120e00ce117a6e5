"""An application with its own tables and SQLAlchemy, that queues a job in the transaction of its write.

    python -m examples.publish postgresql+psycopg://…

The second article is not published, for its title is taken, and so leaves no job. The database needs `postgear init`, and
a worker for the function "index" runs what is queued: `python -m examples.worker 127.0.0.1:4730 index`.
"""

from __future__ import annotations

import sys

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from postgear import enqueue


class Base(DeclarativeBase):
    """The application's tables."""


class Page(Base):
    __tablename__ = "page"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(unique=True)


def publish(engine: Engine, title: str) -> str:
    """Store a page and queue two jobs for it, all or nothing; return the handle of the first."""
    with Session(engine) as session, session.begin():
        page = Page(title=title)
        session.add(page)
        handle = enqueue(session, "publish", title, priority="high")
        session.flush()  # gives the page its id, or fails; that takes back the job queued before, too
        enqueue(session, "index", {"id": page.id, "title": title}, unique=f"page:{page.id}")
    return handle


def main(url: str) -> None:
    """Publish three pages, two of them with the same title."""
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    for title in ("Gears", "Gears", "Levers"):
        try:
            print(f"{title}: {publish(engine, title)}")
        except IntegrityError:
            print(f"{title}: the title is taken, no job")
    engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1])
