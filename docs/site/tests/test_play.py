"""The page to play with: every folder's policy does its work there, with the mouse and by keyboard alone."""

import re

import pytest

RUNS = "Array.from(document.getElementById('run').options, (option) => option.value)"


@pytest.fixture
def play(page, address):
    """The page, its policy loaded, and time standing still until `resume`."""
    page.goto(f"{address}/play/index.html")
    page.wait_for_function("play.game && play.game.policy")
    return page


def choose(page, run):
    page.evaluate(f"location.hash = '{run}'")
    chosen = f"document.getElementById('run').value === '{run}'"
    page.wait_for_function(f"play.loaded['{run}'] && play.game.policy && {chosen}")


def test_the_policy_holds_the_pole_for_500_steps(play):
    play.evaluate("document.getElementById('speed').value = 4")
    play.dispatch_event("#speed", "input")
    play.wait_for_function("play.game.steps >= 500", timeout=30_000)
    assert play.evaluate("play.game.longest") >= 500
    assert int(play.inner_text("#reward")) == 500


def test_every_folders_shipped_policy_does_its_work(play):
    runs = play.evaluate(RUNS)
    assert len(runs) == 15
    for run in runs:
        choose(play, run)
        rewards = play.evaluate("""() => {
          const games = Array.from({ length: 5 }, () => {
            const game = new play.Game(play.game.id);
            game.policy = play.game.policy;
            for (let i = 0; i < game.env.limit && !game.ended; i++) game.step();
            return game.reward;
          });
          return games;
        }""")
        if run.endswith("CartPole-v1"):
            assert rewards == [500] * 5, run
        else:
            assert sum(rewards) / 5 > -300, (run, rewards)


def test_before_its_training_it_can_do_nothing_and_one_sees_it_learn(play):
    for run in ("ppo/CartPole-v1", "ac/CartPole-v1", "sac/Pendulum-v1"):
        choose(play, run)
        last = int(play.get_attribute("#point", "max"))
        assert last >= 4
        means = play.evaluate("""() => play.loaded[document.getElementById("run").value].points.map((point) => {
          const rewards = Array.from({ length: 8 }, () => {
            const game = new play.Game(play.game.id);
            game.policy = new play.Policy(point, play.loaded[document.getElementById("run").value]);
            for (let i = 0; i < game.env.limit && !game.ended; i++) game.step();
            return game.reward;
          });
          return rewards.reduce((a, b) => a + b) / 8;
        })""")
        if run.endswith("CartPole-v1"):
            assert means[0] < 200 and means[-1] == 500, (run, means)
        else:
            assert means[0] < -700 and means[-1] > -300, (run, means)
        play.focus("#point")
        play.keyboard.press("Home")
        assert play.inner_text("#point-label") == "before it"
        play.keyboard.press("ArrowRight")
        assert re.match(r"after [\d,]+ steps, running reward -?[\d.]+", play.inner_text("#point-label"))


def test_the_policy_is_drawn_anew_while_time_stands_still(play):
    play.wait_for_function("play.game.pi")
    play.click("#pause")
    play.wait_for_timeout(100)
    seen = play.evaluate("[play.game.steps, document.getElementById('policy').toDataURL()]")
    play.focus("#point")
    play.keyboard.press("Home")
    play.wait_for_function(f"document.getElementById('policy').toDataURL() !== '{seen[1]}'")
    assert play.evaluate("play.game.steps") == seen[0]


def test_the_longest_episode_is_of_the_weights_on_show(play):
    play.wait_for_function("play.game.steps >= 20")
    choose(play, "ac/CartPole-v1")
    assert play.evaluate("play.game.longest") < 20


def test_the_right_button_holds_nothing(play):
    play.evaluate("play.game.restart()")
    play.evaluate("play.game.step = () => {}")
    play.evaluate("play.game.state = play.game.state.map(() => 0)")
    box = play.locator("#stage").bounding_box()
    play.mouse.move(box["x"] + box["width"] / 2 + 120, box["y"] + box["height"] / 3)
    play.mouse.down(button="right")
    play.wait_for_timeout(300)
    assert play.evaluate("play.game.state.every((x) => x === 0)")


def test_the_mouse_pushes(play):
    for run, right in (("ppo/CartPole-v1", 1), ("sac/Pendulum-v1", -1)):  # which way theta grows
        choose(play, run)
        for way in (1, -1):
            play.evaluate("play.game.restart()")
            play.evaluate("play.game.step = () => {}")  # nothing but the mouse moves it
            play.evaluate("play.game.state = play.game.state.map(() => 0)")
            box = play.locator("#stage").bounding_box()
            play.mouse.move(box["x"] + box["width"] / 2 + way * 120, box["y"] + box["height"] / 3)
            play.mouse.down()
            play.wait_for_function("Math.abs(play.game.state[play.game.state.length - 1]) > 0.05")
            play.mouse.up()
            turn = play.evaluate("play.game.state[play.game.state.length - 1]")
            assert turn * way * right > 0, (run, way, turn)
            play.wait_for_timeout(100)
            assert play.evaluate("play.game.state[play.game.state.length - 1]") == turn  # it has let go


def test_what_moves_has_a_name(play):
    for kind, count in ("slider", 4), ("combobox", 2), ("checkbox", 1):
        found = play.get_by_role(kind)
        names = [found.nth(i).evaluate("it => it.labels[0]?.innerText") for i in range(count)]
        assert found.count() == count == len({*filter(None, names)}), (kind, names)


def test_keys_of_the_browser_and_the_link_to_the_text_leave_the_game_alone(play):
    choose(play, "sac/Pendulum-v1")
    play.wait_for_function("play.game.steps > 3")
    play.focus("#stage")
    handled = """(settings) => !document.getElementById("stage").dispatchEvent(
        new KeyboardEvent("keydown", { cancelable: true, ...settings }))"""
    assert play.evaluate(handled, {"key": "r"})
    assert not any(play.evaluate(handled, {"key": "r", name: True}) for name in ("ctrlKey", "metaKey", "altKey"))
    play.evaluate("location.hash = '#text'")
    play.wait_for_timeout(200)
    assert play.input_value("#run") == "sac/Pendulum-v1"
    play.evaluate("location.hash = '#a2c/CartPole-v1'")
    play.wait_for_function("document.getElementById('run').value === 'a2c/CartPole-v1'")


def test_a_policy_that_draws_nothing_says_so(play):
    for run, none in ("td3/Pendulum-v1", True), ("sac/Pendulum-v1", False), ("ppo/CartPole-v1", False):
        choose(play, run)
        assert play.is_disabled("#sampled") == none, run


def test_by_keyboard_alone(play):
    def reach(name):
        for _ in range(60):
            if play.evaluate("document.activeElement.id") == name:
                return
            play.keyboard.press("Tab")
        raise AssertionError(f"Tab does not lead to {name}")

    reach("stage")
    play.keyboard.press(" ")
    assert play.inner_text("#pause") == "Go on"
    before = play.evaluate("play.game.state[3]")
    play.keyboard.press("ArrowRight")
    assert play.evaluate("play.game.state[3]") == pytest.approx(before + 0.4)
    play.keyboard.press("ArrowLeft")
    assert play.evaluate("play.game.state[3]") == pytest.approx(before)
    play.keyboard.press("r")
    assert play.evaluate("play.game.steps") == 0
    reach("push-right")
    before = play.evaluate("play.game.state[3]")
    play.keyboard.press("Enter")
    assert play.evaluate("play.game.state[3]") == pytest.approx(before + 0.4)
    reach("pause")
    play.keyboard.press("Enter")
    play.wait_for_function("play.game.steps > 3")
    reach("environment")
    play.keyboard.press("ArrowDown")
    play.wait_for_function("play.game.id === 'Pendulum-v1' && play.game.policy && play.game.steps > 3")
    reach("run")
    play.keyboard.press("ArrowDown")
    play.wait_for_function("play.loaded['a3c/Pendulum-v1'] && play.game.policy")
    for name, setting in (("gravity", "gravity"), ("noise", "noise")):
        reach(name)
        before = play.evaluate(f"play.game.{setting}")
        play.keyboard.press("ArrowRight")
        assert play.evaluate(f"play.game.{setting}") > before
    reach("sampled")
    play.keyboard.press(" ")
    assert play.evaluate("play.game.sampled") is True


def test_gravity_and_noise_are_felt(play):
    play.evaluate("play.game.policy = null")
    falls = play.evaluate("""() => [[9.8, 0], [25, 0], [9.8, 1]].map(([gravity, noise]) => {
      const run = play.loaded["ppo/CartPole-v1"], game = new play.Game("CartPole-v1");
      game.policy = new play.Policy(run.points[run.points.length - 1], run);
      Object.assign(game, { gravity, noise });
      const turns = [];
      for (let i = 0; i < 100 && !game.ended; i++) {
        game.step();
        turns.push(Math.abs(game.state[3]));
      }
      return turns.reduce((a, b) => a + b) / turns.length;
    })""")
    assert falls[1] != falls[0] and falls[2] > 1.5 * falls[0]


def test_the_page_is_small(page, address):
    sizes = {}
    page.on("response", lambda answer: sizes.update({answer.url: len(answer.body())}))
    page.goto(f"{address}/play/index.html")
    page.wait_for_function("play.game && play.game.policy")
    own = {url: size for url, size in sizes.items() if "/weights/" not in url}
    assert len(own) >= 4 and sum(own.values()) < 200e3, own


def test_the_films_are_there(page, address):
    page.goto(f"{address}/zh/play/index.html")
    for film in page.locator(".film").all():
        film.locator("summary").click()
        film.locator("img").scroll_into_view_if_needed()
        picture = film.locator("img").element_handle()
        page.wait_for_function("(img) => img.complete && img.naturalWidth > 100", arg=picture)
