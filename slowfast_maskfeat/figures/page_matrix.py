"""Confusion matrix of an HTML page: a canvas to zoom and drag, without a library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from slowfast_maskfeat.figures.page import escaped

STYLE = """
.matrix { max-width: 54rem; margin: 1rem 0; }
.matrix canvas { display: block; width: 100%; border-radius: 4px; }
.matrix canvas:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.bar { display: flex; flex-wrap: wrap; gap: .4rem .5rem; align-items: center; margin: 0 0 .6rem; }
.bar button { font: inherit; font-size: .9rem; min-width: 2.4rem; padding: .25rem .6rem;
  color: var(--ink); background: var(--paper); border: 1px solid var(--line); border-radius: 6px;
  cursor: pointer; }
.bar button:focus-visible { outline: 2px solid var(--accent); }
.matrix output { display: block; min-height: 3em; font-size: .9rem; margin-top: .5rem; }
.swatch { display: inline-block; width: .8rem; height: .8rem; border-radius: 3px;
  margin: 0 .3rem 0 .6rem; background: var(--accent); } .swatch.wrong { background: var(--second); }
@media print { .bar { display: none; } }
"""

SCRIPT = """
for (const box of document.querySelectorAll('.matrix')) {
  const {names, order, support, cells} = JSON.parse(box.querySelector('script').textContent);
  const canvas = box.querySelector('canvas'), said = box.querySelector('output');
  const pen = canvas.getContext('2d'), number = order.length, place = [], found = new Map();
  order.forEach((name, at) => { place[name] = at; });
  for (const [row, column, count] of cells) {
    found.set(place[row] * number + place[column], count);
  }
  const font = '11px system-ui, sans-serif', least = 13;
  let side = 0, left = 0, top = 0, zoom = 1, x = 0, y = 0, chosen = null, waiting = false;
  const most = Math.max(1, number / 5);
  const color = name => getComputedStyle(canvas).getPropertyValue(name).trim();
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const name = at => names[order[at]];
  const size = () => side * zoom / number;
  const limit = () => {
    zoom = clamp(zoom, 1, most);
    x = clamp(x, 0, number - number / zoom);
    y = clamp(y, 0, number - number / zoom);
    canvas.style.touchAction = zoom > 1 ? 'none' : 'pan-x pan-y';
  };
  const cut = (text, room) => {
    if (pen.measureText(text).width <= room) return text;
    const letters = [...text];
    while (letters.length > 1 && pen.measureText(letters.join('') + '\\u2026').width > room) {
      letters.pop();
    }
    return letters.join('') + '\\u2026';
  };
  const resize = () => {
    const width = box.clientWidth - parseFloat(getComputedStyle(box).paddingLeft) * 2;
    const scale = window.devicePixelRatio || 1;
    pen.font = font;
    const longest = names.reduce((x, text) => Math.max(x, pen.measureText(text).width), 0);
    left = top = Math.ceil(Math.min(longest + 12, width * .28)) + 16;
    side = clamp(width - left - 2, 40, Math.max(number * 90, 200));
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round((side + top + 2) * scale);
    canvas.style.height = (side + top + 2) + 'px';
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    limit();
    draw();
  };
  const label = (at, step, ink, soft) => {
    const across = clamp((at + step / 2 - x) * size(), 5, side - 5);
    const down = clamp((at + step / 2 - y) * size(), 5, side - 5);
    const is = axis => chosen && chosen[axis] >= at && chosen[axis] < at + step;
    const inside = from => at + step > from && at < from + number / zoom;
    if (inside(y)) {
      pen.fillStyle = is(0) ? ink : soft;
      pen.fillText(cut(is(0) ? name(chosen[0]) : name(at), left - 22), left - 5, top + down);
    }
    if (inside(x)) {
      pen.save();
      pen.translate(left + across, top - 5);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = 'left';
      pen.fillStyle = is(1) ? ink : soft;
      pen.fillText(cut(is(1) ? name(chosen[1]) : name(at), top - 22), 0, 0);
      pen.restore();
    }
  };
  const draw = () => {
    waiting = false;
    const [ink, soft, card, line, right, wrong] =
      ['--ink', '--soft', '--card', '--line', '--accent', '--second'].map(color);
    const cell = size(), thick = Math.max(cell, 2);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.font = font;
    pen.textBaseline = 'middle';
    pen.save();
    pen.beginPath();
    pen.rect(left, top, side, side);
    pen.fillStyle = card;
    pen.fill();
    pen.clip();
    if (cell >= 8) {
      pen.strokeStyle = line;
      pen.lineWidth = 1;
      pen.beginPath();
      for (let at = Math.ceil(x); at < x + number / zoom; at++) {
        pen.moveTo(left + (at - x) * cell, top);
        pen.lineTo(left + (at - x) * cell, top + side);
      }
      for (let at = Math.ceil(y); at < y + number / zoom; at++) {
        pen.moveTo(left, top + (at - y) * cell);
        pen.lineTo(left + side, top + (at - y) * cell);
      }
      pen.stroke();
    }
    pen.textAlign = 'center';
    for (const [key, count] of found) {
      const row = Math.floor(key / number), column = key % number;
      const across = left + (column - x) * cell, down = top + (row - y) * cell;
      if (across + cell < left || down + cell < top || across > left + side || down > top + side) {
        continue;
      }
      const share = count / support[order[row]];
      const base = cell < 4 ? .4 : .2;  // small cells would be too faint
      pen.globalAlpha = base + (1 - base) * Math.sqrt(share);
      pen.fillStyle = row === column ? right : wrong;
      pen.fillRect(across, down, thick, thick);
      pen.globalAlpha = 1;
      if (cell >= 26) {
        pen.fillStyle = share > .2 ? card : ink;
        pen.fillText(count, across + cell / 2, down + cell / 2);
      }
    }
    if (chosen) {
      const across = left + (chosen[1] - x) * cell, down = top + (chosen[0] - y) * cell;
      pen.strokeStyle = ink;
      pen.globalAlpha = .35;
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(left, down + cell / 2);
      pen.lineTo(across, down + cell / 2);
      pen.moveTo(across + cell / 2, top);
      pen.lineTo(across + cell / 2, down);
      pen.stroke();
      pen.globalAlpha = 1;
      pen.lineWidth = 2;
      pen.strokeRect(across - 1, down - 1, thick + 2, thick + 2);
    }
    pen.restore();
    pen.strokeStyle = line;
    pen.lineWidth = 1;
    pen.strokeRect(left + .5, top + .5, side - 1, side - 1);
    pen.textAlign = 'right';
    const step = Math.max(1, Math.ceil(least / cell));
    for (let at = Math.floor(Math.min(x, y) / step) * step; at < number; at += step) {
      label(at, step, ink, soft);
    }
    pen.fillStyle = ink;
    pen.textAlign = 'center';
    pen.fillText('predicted class', left + side / 2, 7);
    pen.save();
    pen.translate(7, top + side / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText('true class', 0, 0);
    pen.restore();
  };
  const later = () => {
    if (!waiting) requestAnimationFrame(draw);
    waiting = true;
  };
  const choose = (row, column) => {
    chosen = [clamp(row, 0, number - 1), clamp(column, 0, number - 1)];
    const count = found.get(chosen[0] * number + chosen[1]) || 0;
    const total = support[order[chosen[0]]];
    const share = total ? ` (${(100 * count / total).toFixed(1)} %)` : '';
    const other = chosen[0] === chosen[1] ? 'is right' : `is predicted as ${name(chosen[1])}`;
    said.textContent = `${name(chosen[0])} ${other}: ${count} of ${total} videos${share}`;
    later();
  };
  const at = event => {
    const frame = canvas.getBoundingClientRect();
    return [event.clientX - frame.left - left, event.clientY - frame.top - top];
  };
  const pick = event => {
    const [across, down] = at(event);
    if (across < 0 || down < 0 || across >= side || down >= side) return;
    choose(Math.floor(y + down / size()), Math.floor(x + across / size()));
  };
  const scale = (factor, across = side / 2, down = side / 2) => {
    const cell = size(), fixed = [x + across / cell, y + down / cell];
    zoom = clamp(zoom * factor, 1, most);
    x = fixed[0] - across / size();
    y = fixed[1] - down / size();
    limit();
    later();
  };
  const whole = () => { zoom = 1; limit(); later(); };
  const shift = (across, down) => {
    x -= across / size();
    y -= down / size();
    limit();
    later();
  };
  const fingers = new Map();
  let moved = false;
  canvas.addEventListener('pointerdown', event => {
    if (!fingers.size) moved = false;
    fingers.set(event.pointerId, event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', event => {
    const before = fingers.get(event.pointerId);
    if (!before) return pick(event);
    const across = event.clientX - before.clientX, down = event.clientY - before.clientY;
    if (!moved && Math.hypot(across, down) < 4) return undefined;
    moved = true;
    const other = [...fingers.values()].find(finger => finger.pointerId !== event.pointerId);
    if (other) {
      const apart = finger => Math.hypot(finger.clientX - other.clientX,
        finger.clientY - other.clientY);
      const [one, two] = [at(event), at(other)];
      scale(apart(event) / Math.max(apart(before), 1), (one[0] + two[0]) / 2,
        (one[1] + two[1]) / 2);
      shift(across / 2, down / 2);
    } else {
      shift(across, down);
    }
    fingers.set(event.pointerId, event);
    return undefined;
  });
  for (const end of ['pointerup', 'pointercancel']) {
    canvas.addEventListener(end, event => {
      fingers.delete(event.pointerId);
      if (end === 'pointerup' && !moved) pick(event);
    });
  }
  canvas.addEventListener('wheel', event => {
    const [across, down] = at(event);
    if (across < 0 || down < 0 || (event.deltaY > 0 && zoom <= 1)) return;  // the page scrolls
    event.preventDefault();
    scale(Math.exp(-clamp(event.deltaY, -200, 200) / 300), across, down);
  }, {passive: false});
  canvas.addEventListener('dblclick', event => scale(2, ...at(event)));
  canvas.addEventListener('keydown', event => {
    const moves = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
    const move = moves[event.key], now = chosen || [Math.floor(y), Math.floor(x)];
    const middle = [(now[1] + .5 - x) * size(), (now[0] + .5 - y) * size()];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (move) {
      choose(now[0] + (chosen ? move[0] : 0), now[1] + (chosen ? move[1] : 0));
      x = clamp(x, chosen[1] + 1 - number / zoom, chosen[1]);
      y = clamp(y, chosen[0] + 1 - number / zoom, chosen[0]);
      limit();
    } else if (event.key === '+' || event.key === '=') scale(1.5, ...middle);
    else if (event.key === '-') scale(1 / 1.5, ...middle);
    else if (event.key === '0') whole();
    else return;
    event.preventDefault();
  });
  const actions = {in: () => scale(1.6), out: () => scale(1 / 1.6), whole};
  for (const button of box.querySelectorAll('button')) {
    button.addEventListener('click', actions[button.dataset.action]);
  }
  box.hidden = false;
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', later);
  addEventListener('resize', resize);
  resize();
}
"""


def confusion_matrix(
    names: Sequence[str],
    order: Sequence[int],
    support: Sequence[int],
    cells: Sequence[tuple[int, int, int]],
) -> str:
    """Return a confusion matrix; its page needs `STYLE` and `SCRIPT`.

    Without a script it is hidden, and a sentence says so.

    Args:
        names: of the K classes.
        order: of rows and columns, a permutation of the K class numbers.
        support: videos of each class.
        cells: true class, predicted class and number of videos; others are 0.
    """
    data = {"names": list(names), "order": list(order), "support": list(support), "cells": cells}
    label = escaped(
        f"Confusion matrix of {len(names)} classes; arrow keys move to a cell, plus, minus and 0 "
        "zoom. The table below has the most frequent confusions."
    )
    return (
        '<figure class="card matrix" hidden>\n'
        f"{json_script(data)}\n"
        '<div class="bar">'
        '<button type="button" data-action="in" aria-label="zoom in">+</button>'
        '<button type="button" data-action="out" aria-label="zoom out">\N{MINUS SIGN}</button>'
        '<button type="button" data-action="whole">whole</button>'
        '<span class="soft"><span class="swatch"></span>right<span class="swatch wrong"></span>'
        "wrong; stronger: a larger share of the row</span></div>\n"
        f'<canvas tabindex="0" role="img" aria-label="{label}"></canvas>\n'
        '<output aria-live="polite">Point at a cell or tap it: its classes and their count. '
        "Wheel or two fingers zoom, dragging moves; keys: arrows, +, \N{MINUS SIGN}, 0.</output>\n"
        "</figure>\n"
        '<noscript><p class="soft">The confusion matrix needs a script. The table below has the '
        "most frequent confusions.</p></noscript>"
    )


def json_script(value: Any) -> str:
    """Return a value as JSON for a script of the page; no text in it ends the element."""
    text = json.dumps(value, separators=(",", ":"))  # ASCII, so that no text is a line break
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json">{text}</script>'
