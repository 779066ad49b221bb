"""Config of a source that is crawled."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from so8t.section import Section

# A web site that nobody agreed anything with is asked at most this often.
PUBLIC_DELAY_MIN_S = 0.5


class Site(Section):
    """A site that may be crawled; whatever is not named is not visited."""

    host: Annotated[str, Field(pattern=r"^[a-z0-9.-]+(:\d+)?$|^\[[0-9a-f:]+\](:\d+)?$")]
    """Host name in lower case (punycode), with a port where that is not 80 or 443."""
    subdomains: bool = False
    """Also everything below the host."""
    licence: str = ""
    """Licence of all texts of the site, where it states that in a place that no crawler sees; needs `evidence`."""
    evidence: str = ""
    """Where the site states `licence`: a URL or a document that you keep."""

    @model_validator(mode="after")
    def _licence_is_evidenced(self) -> Self:
        if bool(self.licence.strip()) != bool(self.evidence.strip()):
            raise ValueError("licence and evidence go together")
        return self


class WebSource(Section):
    """Pages of named web sites, fetched politely."""

    kind: Literal["web"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """Name of the part."""
    seeds: Annotated[tuple[str, ...], Field(min_length=1)]
    """URLs to begin with; each on one of the sites."""
    sites: Annotated[tuple[Site, ...], Field(min_length=1)]
    """The only sites that are visited."""
    contact: Annotated[str, Field(pattern=r"^https?://\S+$|^[^@\s]+@[^@\s]+$")]
    """Your page or mail address, sent in the User-Agent: who runs a site must be able to reach you."""
    agent: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "so8t"
    """Product token: the name that robots.txt knows the crawler by."""
    also_heed: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], ...] = ("GPTBot", "CCBot", "Google-Extended")
    """Crawlers for training: where robots.txt shuts one of them out by name, it is obeyed as if it named this one."""
    rows_target: Annotated[int, Field(ge=1)] = 1000
    """Pages to keep; the crawl is complete with the round that reaches it."""
    pages_max: Annotated[int, Field(ge=1)] = 10_000
    """Requests for pages in all, redirects and failures included."""
    pages_per_host: Annotated[int, Field(ge=1)] = 2_000
    """The same for each host."""
    depth_max: Annotated[int, Field(ge=0)] = 5
    """Links from a seed."""
    delay_s: Annotated[float, Field(ge=0)] = 1.0
    """Pause between two requests to a host; a longer Crawl-delay of the site wins."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a page is asked for again after 429, 5xx or no answer. Retry-After is obeyed."""
    retry_delay_s: Annotated[float, Field(ge=0)] = 10.0
    """Pause before the first such retry; doubles with each."""
    patience_s: Annotated[float, Field(gt=0)] = 900.0
    """Longest pause that a site may ask for (Crawl-delay, Retry-After); one that wants a longer one is left out."""
    timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """For one request in all; a third of it for each wait on the network."""
    size_max_bytes: Annotated[int, Field(ge=1024)] = 2 * 2**20
    """Largest page, unpacked; a larger one is refused, not cut."""
    text_characters_min: Annotated[int, Field(ge=1)] = 200
    """A page whose text is shorter is no row."""
    text_characters_max: Annotated[int, Field(ge=100, le=20_000)] = 8_000
    """A longer text becomes several rows, cut between paragraphs."""
    licences: tuple[str, ...] = ("mit", "apache-2.0")
    """Claims of a page that let it pass; a page that claims none, or any other, is set aside without its text."""
    accept: tuple[str, ...] = ()
    """Further licences that you accept for this source alone."""
    private_hosts: tuple[str, ...] = ()
    """Hosts of your own machine or network (`127.0.0.1:8000`): the only ones with a private address that are visited."""
    expiry_days: Annotated[float, Field(gt=0)] = 7.0
    """An interrupted crawl without progress for as long begins anew: pages of two times do not mix."""

    @field_validator("seeds")
    @classmethod
    def _seeds_are_urls(cls, seeds: tuple[str, ...]) -> tuple[str, ...]:
        for seed in seeds:
            parts = urlsplit(seed)
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise ValueError(f"{seed!r} is no http or https URL without a user name")
        return seeds

    @model_validator(mode="after")
    def _strangers_are_asked_slowly(self) -> Self:
        public = [site.host for site in self.sites if site.host not in self.private_hosts]
        if public and self.delay_s < PUBLIC_DELAY_MIN_S:
            raise ValueError(f"delay_s below {PUBLIC_DELAY_MIN_S} is for private_hosts; {public[0]} is none")
        return self
