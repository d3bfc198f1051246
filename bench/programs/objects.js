// SPDX-License-Identifier: MIT
// A heap of JavaScript objects that answers: objects.js COUNT.  bench/victims.py says what the commands are.
'use strict';
const readline = require('node:readline');

const record = (i) => ({id: i, name: `user:${i}-${i * 31 % 104729}`, tags: [`t${i % 7919}`, i * 7], score: i * 0.5});

const right = (o, i) => {
	const r = record(i);
	return o.id === r.id && o.name === r.name && o.tags[0] === r.tags[0] && o.tags[1] === r.tags[1] &&
		o.score === r.score;
};

const count = Number(process.argv[2]);
const heap = [];
for (let i = 0; i < count; i++)
	heap.push(record(i));
let state = 2;
const choose = () => {
	state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
	return Math.floor(state / 2 ** 32 * count);
};
const counts = {one: 1, hundred: 99, next: 20000};
process.stdout.write('ready 0 0\n');
readline.createInterface({input: process.stdin}).on('line', (command) => {
	const start = process.hrtime.bigint();
	let wrong = 0;
	for (let n = 0; n < (counts[command] ?? count); n++) {
		const i = command in counts ? choose() : n;
		wrong += right(heap[i], i) ? 0 : 1;
	}
	process.stdout.write(`${command} ${process.hrtime.bigint() - start} ${wrong}\n`);
});
