// CartPole and Pendulum as gym 0.26 has them, the folders' networks, and the page that lets one play with both.
// Node takes it as a module (the tests do), a browser as the script of play/index.html.
"use strict";

const play = {};

// ---- Environments: a state is an array of numbers; step returns [next state, reward, whether the task ended].

play.environments = {
  "CartPole-v1": {
    dt: 0.02, // seconds a step
    limit: 500, // steps an episode
    gravity: 9.8,
    noise: [0.3, 0.3, 0.05, 0.3], // deviation of what the policy sees at the slider's 1: x, x', theta, theta'
    kick: 0.4, // rad/s, one push by key
    pull: 4, // rad/s^2 for each metre between the tip and the mouse that holds it
    reset: (random) => [0, 0, 0, 0].map(() => random() * 0.1 - 0.05),
    observe: (state) => state,
    step([x, speed, theta, turn], action, gravity) {
      const force = action === 1 ? 10 : -10;
      const cos = Math.cos(theta), sin = Math.sin(theta);
      const [cart, pole, half] = [1.0, 0.1, 0.5]; // kg, kg, m: half the pole's length
      const total = cart + pole;
      const temp = (force + pole * half * turn ** 2 * sin) / total;
      const turning = (gravity * sin - cos * temp) / (half * (4 / 3 - (pole * cos ** 2) / total));
      const pushing = temp - (pole * half * turning * cos) / total;
      const next = [x + this.dt * speed, speed + this.dt * pushing, theta + this.dt * turn, turn + this.dt * turning];
      const ended = Math.abs(next[0]) > 2.4 || Math.abs(next[2]) > (12 * 2 * Math.PI) / 360;
      return [next, 1, ended];
    },
    push: ([x, speed, theta, turn], by) => [x, speed, theta, turn + by],
    tip: ([x, , theta]) => [x + Math.sin(theta), Math.cos(theta)],
  },
  "Pendulum-v1": {
    dt: 0.05,
    limit: 200,
    gravity: 10,
    noise: [0.3, 0.3, 1], // cos, sin, theta'
    kick: -3, // theta grows to the left
    pull: -25,
    reset: (random) => [Math.PI * (2 * random() - 1), 2 * random() - 1],
    observe: ([theta, turn]) => [Math.cos(theta), Math.sin(theta), turn],
    step([theta, turn], action, gravity) {
      const torque = Math.min(Math.max(action, -2), 2);
      const off = modulo(theta + Math.PI, 2 * Math.PI) - Math.PI;
      const cost = off ** 2 + 0.1 * turn ** 2 + 0.001 * torque ** 2;
      const turning = ((3 * gravity) / 2) * Math.sin(theta) + 3 * torque; // l = m = 1
      const next = Math.min(Math.max(turn + turning * this.dt, -8), 8);
      return [[theta + next * this.dt, next], -cost, false];
    },
    push: ([theta, turn], by) => [theta, Math.min(Math.max(turn + by, -8), 8)],
    tip: ([theta]) => [-Math.sin(theta), Math.cos(theta)],
  },
};

function modulo(x, n) {
  return ((x % n) + n) % n;
}

// ---- Networks: what networks.py has exported.

class Network {
  // numbers: Float32Array, layer after layer from `offset` on: weights row by row, then biases.
  constructor({ sizes, hidden, output }, numbers, offset) {
    this.layers = [];
    for (let i = 1; i < sizes.length; i++) {
      const [from, to] = [sizes[i - 1], sizes[i]];
      const W = numbers.subarray(offset, offset + from * to);
      const b = numbers.subarray(offset + from * to, offset + (from + 1) * to);
      this.layers.push({ W, b, act: i === sizes.length - 1 ? output : hidden });
      offset += (from + 1) * to;
    }
    this.end = offset;
  }

  forward(x) {
    for (const { W, b, act } of this.layers) {
      const y = Float64Array.from(b);
      for (let i = 0; i < x.length; i++) {
        for (let j = 0; j < y.length; j++) y[j] += x[i] * W[i * y.length + j];
      }
      if (act === "tanh") for (let j = 0; j < y.length; j++) y[j] = Math.tanh(y[j]);
      if (act === "relu") for (let j = 0; j < y.length; j++) y[j] = Math.max(y[j], 0);
      x = y;
    }
    return x;
  }
}

class Policy {
  constructor(point, { bound, rewardScale }) {
    Object.assign(this, { kind: point.kind, bound, rewardScale, std: point.std && point.std[0] });
    this.mean = point.mean;
    this.deviation = point.var && point.var.map((each) => Math.sqrt(each + 1e-8));
    const bytes = Uint8Array.from(atob(point.data), (char) => char.charCodeAt(0));
    const numbers = new Float32Array(bytes.buffer);
    this.actor = new Network(point.actor, numbers, 0);
    this.critic = point.critic && new Network(point.critic, numbers, this.actor.end);
    this.ofActions = Boolean(this.critic) && point.critic.sizes[0] > point.actor.sizes[0]; // Q(s, a), not V(s)
  }

  // What the networks see of an observation.
  seen(observation) {
    if (!this.mean) return observation;
    return observation.map((x, i) => Math.min(Math.max((x - this.mean[i]) / this.deviation[i], -10), 10));
  }

  // pi(.|s): {probabilities}, or {mean, std} of an action before it is squashed or clipped.
  at(observation) {
    const output = this.actor.forward(this.seen(observation));
    if (this.kind === "softmax") {
      const top = Math.max(...output);
      const weights = Array.from(output, (logit) => Math.exp(logit - top));
      const sum = weights.reduce((a, b) => a + b);
      return { probabilities: weights.map((weight) => weight / sum) };
    }
    if (this.kind === "squashed") return { mean: output[0], std: Math.exp(Math.min(Math.max(output[1], -20), 2)) };
    return { mean: this.bound * output[0], std: this.kind === "gaussian" ? this.std : 0 };
  }

  // The likeliest action, or with `random` one that is drawn.
  act(pi, random) {
    if (pi.probabilities) {
      if (!random) return pi.probabilities.indexOf(Math.max(...pi.probabilities));
      let left = random();
      return Math.max(0, pi.probabilities.findIndex((p) => (left -= p) < 0));
    }
    const action = pi.mean + (random ? pi.std * normal(random) : 0);
    return this.kind === "squashed" ? this.bound * Math.tanh(action) : action;
  }

  // V(s), or Q(s, a), in units of the environment's rewards; null without a critic.
  value(observation, action) {
    if (!this.critic) return null;
    const seen = this.seen(observation);
    return this.critic.forward(this.ofActions ? [...seen, action] : seen)[0] / this.rewardScale;
  }

  // Density of an action, up to a factor.
  density(pi, action) {
    if (this.kind !== "squashed") return Math.exp(-0.5 * ((action - pi.mean) / pi.std) ** 2);
    const part = action / this.bound;
    if (Math.abs(part) >= 1) return 0;
    return Math.exp(-0.5 * ((Math.atanh(part) - pi.mean) / pi.std) ** 2) / (1 - part ** 2);
  }
}

function normal(random) {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

play.Policy = Policy;
play.loaded = {}; // "ppo/CartPole-v1": what weights/ppo_CartPole-v1.js has handed over
play.weights = (run) => (play.loaded[`${run.folder}/${run.env}`] = run);

// ---- A game: an environment, a policy in it, and what the reader does to both.

class Game {
  constructor(id) {
    this.env = play.environments[id];
    Object.assign(this, { id, gravity: this.env.gravity, noise: 0, sampled: false, policy: null, longest: 0 });
    this.restart();
  }

  restart() {
    this.state = this.before = this.env.reset(Math.random);
    this.steps = this.reward = 0;
    this.ended = false;
    this.rewards = [];
    this.values = [];
    this.pi = this.action = null;
  }

  observe() {
    return this.env.observe(this.state).map((x, i) => x + this.noise * this.env.noise[i] * normal(Math.random));
  }

  step() {
    const seen = this.observe();
    this.pi = this.policy.at(seen);
    this.action = this.policy.act(this.pi, this.sampled && Math.random);
    this.seen = seen;
    this.values = [...this.values.slice(-199), this.policy.value(seen, this.action)];
    this.before = this.state;
    let reward;
    [this.state, reward, this.ended] = this.env.step(this.state, this.action, this.gravity);
    this.steps += 1;
    this.rewards = [...this.rewards.slice(1 - this.env.limit), reward]; // those of one episode's length
    this.reward = this.rewards.reduce((a, b) => a + b);
    this.longest = Math.max(this.longest, this.steps);
  }

  push(by) {
    if (!this.ended) this.state = this.env.push(this.state, by);
  }
}

play.Game = Game;

// ---- The page.

function page() {
  const words = JSON.parse(document.getElementById("words").textContent);
  const $ = (name) => document.getElementById(name);
  const stage = $("stage"), drawing = stage.getContext("2d");
  let game = null, paused = false, held = null, waited = 0, left = 0, last = null, drawn = null;

  // Choosing: environment and folder, checkpoint, settings

  function folders(id) {
    return Array.from($("run").options).filter((option) => option.value.endsWith(id));
  }

  function choose(run) {
    const [, id] = run.split("/");
    $("run").value = run;
    $("environment").value = id;
    for (const group of $("run").querySelectorAll("optgroup")) group.hidden = group.label !== id;
    if (!game || game.id !== id) {
      game = play.game = new Game(id);
      $("gravity").value = game.gravity;
      $("held").textContent = words.reward[id];
    }
    settings();
    game.policy = null;
    $("point").disabled = true; // until its weights are there
    load(run).then((loaded) => {
      if ($("run").value !== run) return; // another has been chosen meanwhile
      $("point").max = loaded.points.length - 1;
      $("point").value = loaded.points.length - 1;
      $("point").disabled = loaded.points.length < 2;
      point();
      $("sampled").disabled = game.policy.kind === "deterministic"; // DDPG's and TD3's draw nothing
      game.longest = 0; // of these weights
      game.restart();
    });
  }

  function load(run) {
    if (play.loaded[run]) return Promise.resolve(play.loaded[run]);
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `${document.body.dataset.root}weights/${run.replace("/", "_")}.js`;
      script.onload = () => resolve(play.loaded[run]);
      script.onerror = reject;
      document.head.append(script);
    });
  }

  function point() {
    const run = play.loaded[$("run").value];
    const { steps, running } = run.points[$("point").value];
    game.policy = new Policy(run.points[$("point").value], run);
    if (game.pi) game.pi = game.policy.at(game.seen); // drawn anew, also while time stands still
    let label = steps === null ? words.shipped : words.after.replace("{}", steps.toLocaleString("en"));
    if (steps === 0) label = words.untrained;
    if (running !== null) label += words.running.replace("{}", running);
    $("point-label").textContent = label;
    $("point").setAttribute("aria-valuetext", label);
  }

  function settings() {
    game.gravity = Number($("gravity").value);
    game.noise = Number($("noise").value);
    game.sampled = $("sampled").checked;
    $("gravity-label").textContent = `${game.gravity.toFixed(1)} m/s²`;
    $("noise-label").textContent = game.noise.toFixed(2);
    $("speed-label").textContent = `${$("speed").value}×`;
  }

  function pause(now = !paused) {
    paused = now;
    $("pause").textContent = paused ? words.resume : words.pause;
  }

  $("environment").addEventListener("change", () => choose(folders($("environment").value)[0].value));
  $("run").addEventListener("change", () => choose($("run").value));
  $("point").addEventListener("input", point);
  for (const name of ["gravity", "noise", "speed", "sampled"]) $(name).addEventListener("input", settings);
  $("pause").addEventListener("click", () => pause());
  $("restart").addEventListener("click", () => game.restart());
  $("push-left").addEventListener("click", () => game.push(-game.env.kick));
  $("push-right").addEventListener("click", () => game.push(game.env.kick));
  addEventListener("hashchange", () => fromHash() && choose(fromHash()));

  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's
    const keys = {
      ArrowLeft: () => game.push(-game.env.kick),
      ArrowRight: () => game.push(game.env.kick),
      " ": () => event.repeat || pause(),
      r: () => game.restart(),
    };
    if (keys[event.key]) {
      keys[event.key]();
      event.preventDefault();
    }
  });

  // Holding: while the mouse is down a spring draws the tip towards it.

  function metres(event) {
    const box = stage.getBoundingClientRect();
    const { scale, x, y } = view(box.width, box.height);
    return [(event.clientX - box.left - x) / scale, (y - (event.clientY - box.top)) / scale];
  }

  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return; // the browser's menu
    held = metres(event);
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => held && (held = metres(event)));
  stage.addEventListener("lostpointercapture", () => (held = null)); // also after pointerup and pointercancel

  function pull() {
    const [x, y] = game.env.tip(game.state);
    const foot = game.id === "CartPole-v1" ? game.state[0] : 0;
    const across = (held[0] - x) * y - (held[1] - y) * (x - foot); // of the distance, what is across the pole
    game.push(game.env.pull * Math.min(Math.max(across, -1.5), 1.5) * game.env.dt);
  }

  // Time: as many steps of dt as the clock has gone on, drawn in between.

  function frame(now) {
    requestAnimationFrame(frame);
    const elapsed = Math.min((now - (last ?? now)) / 1000, 0.1) * Number($("speed").value);
    last = now;
    if (!game || !game.policy) return;
    if (!paused && game.ended) {
      waited += elapsed;
      if (waited > 0.8) {
        waited = left = 0;
        game.restart();
      }
    } else if (!paused) {
      for (left += elapsed; left >= game.env.dt && !game.ended; left -= game.env.dt) {
        if (held) pull();
        game.step();
      }
    }
    draw();
  }

  // Drawing

  function view(width, height) {
    if (game.id === "CartPole-v1") return { scale: width / 5.2, x: width / 2, y: height * 0.75 };
    return { scale: height / 2.6, x: width / 2, y: height / 2 };
  }

  // A canvas cleared, in units of CSS pixels; and the theme's colours.
  function cleared(canvas) {
    const ratio = devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = canvas;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = "13px system-ui, sans-serif";
    context.lineCap = context.lineJoin = "round";
    return [context, width, height];
  }

  let colours = {};
  function theme() {
    drawn = null;
    const style = getComputedStyle(document.documentElement);
    for (const name of ["text", "soft", "line", "accent", "second"]) colours[name] = style.getPropertyValue(`--${name}`);
  }
  theme();
  new MutationObserver(theme).observe(document.documentElement, { attributes: true });
  addEventListener("resize", () => (drawn = null));

  function stroke(context, colour, width, points) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
  }

  function disc(context, colour, x, y, radius) {
    context.fillStyle = colour;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
  }

  function draw() {
    const part = game.ended ? 1 : Math.min(left / game.env.dt, 1);
    const state = game.state.map((x, i) => game.before[i] + part * (x - game.before[i]));
    const [context, width, height] = cleared(stage);
    const { scale, x: middle, y: ground } = view(width, height);
    const at = ([x, y]) => [middle + x * scale, ground - y * scale];
    const tip = at(game.env.tip(state));
    if (game.id === "CartPole-v1") {
      const [cart] = at([state[0], 0]);
      stroke(context, colours.line, 2, [[0, ground + 14], [width, ground + 14]]);
      for (const end of [-2.4, 2.4]) stroke(context, colours.line, 2, [at([end, 0.12]), at([end, -0.12])]);
      context.fillStyle = colours.text;
      context.fillRect(cart - 0.25 * scale, ground - 10, 0.5 * scale, 22);
      stroke(context, game.ended ? colours.second : colours.accent, 9, [[cart, ground], tip]);
      disc(context, colours.text, cart, ground, 4);
      if (game.action !== null) { // the force, in front of the cart
        const way = game.action === 1 ? 1 : -1, from = cart + way * 0.3 * scale, to = cart + way * 0.55 * scale;
        stroke(context, colours.second, 3, [[from, ground], [to, ground]]);
        stroke(context, colours.second, 3, [[to - way * 7, ground - 6], [to, ground], [to - way * 7, ground + 6]]);
      }
    } else {
      stroke(context, colours.accent, 16, [at([0, 0]), tip]);
      disc(context, colours.text, middle, ground, 5);
      const torque = Math.min(Math.max(game.action ?? 0, -2), 2);
      if (Math.abs(torque) > 0.02) { // the torque: an arc from the top, to the left if positive
        context.strokeStyle = colours.second;
        context.lineWidth = 4;
        context.beginPath();
        const radius = 0.4 * scale, end = -Math.PI / 2 - torque * 0.8, way = torque > 0 ? 1 : -1;
        context.arc(middle, ground, radius, -Math.PI / 2, end, torque > 0);
        context.stroke();
        const x = middle + radius * Math.cos(end), y = ground + radius * Math.sin(end), along = end - (way * Math.PI) / 2;
        const barb = (turn) => [x - 9 * Math.cos(along + turn), y - 9 * Math.sin(along + turn)];
        stroke(context, colours.second, 3, [barb(0.6), [x, y], barb(-0.6)]);
      }
    }
    if (held) {
      stroke(context, colours.soft, 1.5, [tip, at(held)]);
      disc(context, colours.soft, ...at(held), 5);
    }
    if (game.pi && game.pi !== drawn) { // once a step
      drawPolicy();
      drawValue();
      drawn = game.pi;
    }
    $("steps").textContent = game.steps;
    $("longest").textContent = game.longest;
    $("reward").textContent = game.reward.toFixed(game.id === "CartPole-v1" ? 0 : 1);
  }

  function drawPolicy() {
    const [context, width, height] = cleared($("policy"));
    if (game.pi.probabilities) {
      game.pi.probabilities.forEach((probability, i) => {
        const x = width * (i ? 0.56 : 0.12), full = height - 44;
        context.fillStyle = i === game.action ? colours.accent : colours.line;
        context.fillRect(x, height - 22 - probability * full, width * 0.32, Math.max(probability * full, 1));
        context.fillStyle = colours.text;
        context.textAlign = "center";
        context.fillText(words.actions[i], x + width * 0.16, height - 6);
        context.fillText(`${Math.round(100 * probability)}%`, x + width * 0.16, height - 28 - probability * full);
      });
      return;
    }
    const { policy, pi, env } = game, reach = 3, base = height - 22;
    const at = (action) => ((Math.min(Math.max(action, -reach), reach) + reach) / (2 * reach)) * width;
    const grid = Array.from({ length: 121 }, (_, i) => -reach + (2 * reach * i) / 120);
    stroke(context, colours.line, 1, [[0, base], [width, base]]);
    context.fillStyle = colours.soft;
    context.textAlign = "center";
    for (const tick of [-2, 0, 2]) {
      stroke(context, colours.line, 1, [[at(tick), 8], [at(tick), base]]);
      context.fillText(String(tick).replace("-", "−"), at(tick), height - 6);
    }
    if (policy.ofActions) { // Q(s, .) behind it, from its least to its largest value
      const inside = grid.filter((action, i) => Math.abs(action) <= policy.bound && i % 3 === 0);
      const q = inside.map((action) => policy.value(game.seen, action));
      const [low, high] = [Math.min(...q), Math.max(...q)];
      const points = inside.map((a, i) => [at(a), base - 4 - ((q[i] - low) / (high - low + 1e-9)) * (base - 24)]);
      stroke(context, colours.second, 2, points);
    }
    if (pi.std > 0) {
      const density = grid.map((action) => policy.density(pi, action));
      const top = Math.max(...density, 1e-300);
      stroke(context, colours.accent, 2.5, grid.map((a, i) => [at(a), base - (density[i] / top) * (base - 16)]));
    }
    stroke(context, colours.accent, 2.5, [[at(game.action), base], [at(game.action), pi.std > 0 ? base - 14 : 16]]);
    disc(context, colours.accent, at(game.action), base, 5);
  }

  function drawValue() {
    const [context, width, height] = cleared($("value"));
    const values = game.values;
    context.fillStyle = colours.text;
    context.textAlign = "left";
    if (values[values.length - 1] === null) {
      context.fillText(words.nocritic, 8, height / 2);
      return;
    }
    const middle = (Math.min(...values) + Math.max(...values)) / 2;
    const reach = Math.max(Math.max(...values) - middle, 1), low = middle - reach, high = middle + reach;
    const at = (value, i) => [(i / 199) * (width - 12) + 6, height - 10 - ((value - low) / (high - low)) * (height - 44)];
    stroke(context, colours.accent, 2.5, values.map(at));
    const now = values[values.length - 1];
    context.fillText(`${game.policy.ofActions ? "Q(s, a)" : "V(s)"} = ${now.toFixed(1)}`.replace("-", "−"), 8, 18);
    disc(context, colours.accent, ...at(now, values.length - 1), 4);
  }

  // The policy that the address names, if it names one: the link to the text does not.
  function fromHash() {
    const wanted = location.hash.slice(1);
    return Array.from($("run").options).some((option) => option.value === wanted) && wanted;
  }

  choose(fromHash() || "ppo/CartPole-v1");
  requestAnimationFrame(frame);
}

if (typeof module !== "undefined") module.exports = play;
else addEventListener("DOMContentLoaded", page);
