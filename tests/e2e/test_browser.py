"""The demo page in Chromium: two browsers on two nodes see each other."""

import contextlib
import os
import pathlib
import shutil

import pytest
from harness import cluster
from playwright.async_api import async_playwright, expect

pytestmark = pytest.mark.browser

SCREENSHOTS = pathlib.Path(os.environ.get("ORBWEB_SCREENSHOTS", "target/screenshots"))
# Chromium as root in a container, without calling anybody.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=8000)


@contextlib.asynccontextmanager
async def browsers(*users_and_nodes):
    """A browser with the demo page for each (user, node)."""
    async with async_playwright() as playwright, contextlib.AsyncExitStack() as stack:
        pages = []
        for user, node in users_and_nodes:
            browser = await playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=FLAGS
            )
            stack.push_async_callback(browser.close)
            page = await browser.new_page(viewport={"width": 1100, "height": 760})
            page.errors = []
            page.on("pageerror", lambda error, page=page: page.errors.append(str(error)))
            await enter(page, node, user)
            pages.append(page)
        yield pages
        for page in pages:
            assert page.errors == []


async def enter(page, node, user):
    await page.goto(f"{node.http}/demo")
    await page.fill("#user", user)
    await page.press("#user", "Enter")
    await expect(page.locator("#status")).to_have_attribute("data-state", "connected")
    await expect(page.locator("#node")).to_contain_text(node.name)


async def say(page, text):
    await page.get_by_label("Message", exact=True).fill(text)
    await page.click("#send")


async def test_two_browsers_on_two_nodes_see_each_other():
    async with cluster(2, args=["--dev"]) as c:
        async with browsers(("alice", c[0]), ("bob", c[1])) as (alice, bob):
            for page in (alice, bob):
                for user in ("alice", "bob"):
                    await expect(page.locator("#online")).to_contain_text(user)
            await say(alice, "hello from the first node")
            await say(bob, "and back from the second")
            for page in (alice, bob):
                await expect(page.locator("#messages")).to_contain_text("hello from the first node")
                await expect(page.locator("#messages")).to_contain_text("and back from the second")
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            for name, page in (("alice", alice), ("bob", bob)):
                await page.screenshot(path=SCREENSHOTS / f"demo-{name}.png")


async def test_a_direct_message_reaches_one_user_alone():
    async with cluster(3, args=["--dev"]) as c:
        people = zip(("alice", "bob", "carol"), c, strict=True)
        async with browsers(*people) as (alice, bob, carol):
            await expect(alice.locator("#online")).to_contain_text("bob")
            await alice.fill("#dm-to", "bob")
            await say(alice, "for you alone")
            await expect(bob.locator("#messages")).to_contain_text("for you alone")
            await alice.fill("#dm-to", "")
            await say(alice, "for everybody")
            await expect(carol.locator("#messages")).to_contain_text("for everybody")
            await expect(carol.locator("#messages")).not_to_contain_text("for you alone")


async def test_a_page_whose_node_dies_moves_on_to_another():
    async with cluster(3, args=["--dev"]) as c:
        async with browsers(("alice", c[0]), ("bob", c[1])) as (alice, bob):
            await expect(alice.locator("#nodes li")).to_have_count(3)
            c[0].kill()
            await expect(alice.locator("#messages")).to_contain_text("Moved from node n1 to n")
            await expect(alice.locator("#status")).to_have_attribute("data-state", "connected")
            await expect(bob.locator("#online")).to_contain_text("alice")
            await say(alice, "still here")
            for page in (alice, bob):
                await expect(page.locator("#messages")).to_contain_text("still here")
            await expect(alice.locator("#nodes")).not_to_contain_text("n1")
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            await alice.screenshot(path=SCREENSHOTS / "demo-moved.png")


async def test_what_users_type_is_shown_as_text():
    async with cluster(1, args=["--dev"]) as c:
        async with browsers(("alice", c[0])) as (alice,):
            await say(alice, "<img src=x onerror=document.title='broken'>")
            await expect(alice.locator("#messages")).to_contain_text("<img src=x")
            assert await alice.title() != "broken"


async def test_the_page_is_there_in_development_mode_only():
    async with cluster(1) as c:
        assert await c[0].get_status_code("/demo") == 404
