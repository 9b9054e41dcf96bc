// Runs a client's cases and prints what it made of the gateway's replies: see ../sdk/cases.py.

import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const EGG = 'How do I boil an egg?';
export const MAYOR = 'Who is the mayor of Marrowby?';
export const PASSWORD = 'What is the admin password of the Halyard router?';
export const WEATHER = 'What is the weather in Paris?';
export const BREAKS_OFF = 'Tell me a story, and break off in the middle.';
export const BAD_KEY = 'sk-wrong';
export const MISSING_MODEL = 'no-such-model';
export const SCHEMA = {
  type: 'object',
  properties: { minutes: { type: 'integer' } },
  required: ['minutes'],
  additionalProperties: false,
};
export const PARAMETERS = {
  type: 'object',
  properties: { city: { type: 'string' } },
  required: ['city'],
  additionalProperties: false,
};
export const url = process.argv[2]; // the gateway's, without /v1

export function askEach(ask, suffix = '') {
  const questions = { passed: EGG, edited: MAYOR, suppressed: PASSWORD };
  return Object.fromEntries(
    Object.entries(questions).map(([name, text]) => [name + suffix, () => ask(text)]),
  );
}

export async function joined(pieces) {
  const texts = [];
  for await (const piece of pieces) if (piece) texts.push(piece);
  return (texts.length > 1 ? '' : '[one piece] ') + texts.join('');
}

export async function report(cases, ...packages) {
  const seen = {};
  for (const [name, run] of Object.entries(cases)) {
    try {
      seen[name] = await run();
    } catch (error) {
      const status = error.status ?? error.statusCode ?? error.lastError?.statusCode ?? null;
      seen[name] = { error: error.name, status, message: String(error.message).slice(0, 600) };
    }
  }
  const folder = join(dirname(fileURLToPath(import.meta.url)), 'node_modules');
  const version = (name) => JSON.parse(readFileSync(join(folder, name, 'package.json'), 'utf8')).version;
  const versions = Object.fromEntries(packages.map((name) => [name, version(name)]));
  console.log(JSON.stringify({ versions, seen }));
}
