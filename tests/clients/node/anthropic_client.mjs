// Anthropic's own client for node.

import Anthropic from '@anthropic-ai/sdk';
import * as cases from './cases.mjs';

const client = new Anthropic({ baseURL: cases.url, apiKey: 'k', maxRetries: 0 });
const tool = { name: 'get_weather', description: 'The weather', input_schema: cases.PARAMETERS };
const body = (text, more = {}) => ({
  model: 'm',
  max_tokens: 64,
  messages: [{ role: 'user', content: text }],
  ...more,
});

const ask = async (text, by = client, more = {}) => {
  const message = await by.messages.create(body(text, more));
  return [message.content[0].text, message.stop_reason, message.usage.output_tokens > 0];
};

const stream = async (text) => {
  const texts = [];
  const events = client.messages.stream(body(text)).on('text', (piece) => texts.push(piece));
  const message = await events.finalMessage();
  return [await cases.joined(texts), message.stop_reason];
};

await cases.report(
  {
    ...cases.askEach(ask, '_message'),
    ...cases.askEach(stream, '_message_stream'),
    tools: async () => (await client.messages.create(body(cases.WEATHER, { tools: [tool] }))).content[0].input,
    tools_stream: async () =>
      (await client.messages.stream(body(cases.WEATHER, { tools: [tool] })).finalMessage()).content[0].input,
    edited_tools: async () =>
      (await client.messages.create(body(cases.MAYOR, { tools: [tool] }))).content[0].text,
    error_401: () => ask(cases.EGG, client.withOptions({ apiKey: cases.BAD_KEY })),
    error_404_model: () => ask(cases.EGG, client, { model: cases.MISSING_MODEL }),
    error_400: () => ask(cases.EGG, client, { temperature: 99 }),
    error_stream: () => stream(cases.BREAKS_OFF),
    models: async () => (await client.models.list()).data.map((model) => model.id),
    count_tokens: async () =>
      (await client.messages.countTokens({ model: 'm', messages: [{ role: 'user', content: cases.EGG }] }))
        .input_tokens,
  },
  '@anthropic-ai/sdk',
);
