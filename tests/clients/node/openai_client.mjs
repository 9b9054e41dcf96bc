// openai-node, by both of OpenAI's APIs, and its Azure client.

import OpenAI, { AzureOpenAI } from 'openai';
import * as cases from './cases.mjs';

const client = new OpenAI({ baseURL: `${cases.url}/v1`, apiKey: 'k', maxRetries: 0 });
const azure = new AzureOpenAI({
  endpoint: cases.url,
  apiKey: 'k',
  apiVersion: '2024-10-21',
  maxRetries: 0,
});
const tool = { name: 'get_weather', parameters: cases.PARAMETERS, strict: true };
const chatTool = { type: 'function', function: tool };
const turns = (text) => [{ role: 'user', content: text }];

const chat = async (text, by = client, more = {}) =>
  (await by.chat.completions.create({ model: 'm', messages: turns(text), ...more })).choices[0].message
    .content;

async function* deltas(stream, read) {
  for await (const event of stream) yield read(event);
}

const stream = async (text, by = client) =>
  cases.joined(
    deltas(
      await by.chat.completions.create({ model: 'm', messages: turns(text), stream: true }),
      (chunk) => chunk.choices[0]?.delta.content,
    ),
  );

const respondStream = async (text) =>
  cases.joined(
    deltas(await client.responses.create({ model: 'm', input: text, stream: true }), (event) =>
      event.type === 'response.output_text.delta' ? event.delta : null,
    ),
  );

const structured = async (text) => {
  const format = { type: 'json_schema', json_schema: { name: 'boiling', schema: cases.SCHEMA, strict: true } };
  const { message } = (
    await client.chat.completions.parse({ model: 'm', messages: turns(text), response_format: format })
  ).choices[0];
  return message.refusal ?? message.content;
};

await cases.report(
  {
    ...cases.askEach(chat),
    ...cases.askEach(stream, '_stream'),
    ...cases.askEach((text) => chat(text, azure), '_azure'),
    ...cases.askEach((text) => stream(text, azure), '_azure_stream'),
    ...cases.askEach(
      async (text) => (await client.completions.create({ model: 'm', prompt: text })).choices[0].text,
      '_completions',
    ),
    ...cases.askEach(
      async (text) => (await client.responses.create({ model: 'm', input: text })).output_text,
      '_responses',
    ),
    ...cases.askEach(respondStream, '_responses_stream'),
    ...cases.askEach(
      async (text) => (await client.responses.stream({ model: 'm', input: text }).finalResponse()).output_text,
      '_responses_stream_events',
    ),
    ...cases.askEach(
      (text) => client.chat.completions.stream({ model: 'm', messages: turns(text) }).finalContent(),
      '_stream_events',
    ),
    tools: async () =>
      (await client.chat.completions.create({ model: 'm', messages: turns(cases.WEATHER), tools: [chatTool] }))
        .choices[0].message.tool_calls[0].function.arguments,
    tools_stream: async () =>
      (
        await client.chat.completions
          .stream({ model: 'm', messages: turns(cases.WEATHER), tools: [chatTool] })
          .finalMessage()
      ).tool_calls[0].function.arguments,
    edited_tools: () => chat(cases.MAYOR, client, { tools: [chatTool] }),
    structured: () => structured(cases.EGG),
    suppressed_structured: () => structured(cases.PASSWORD),
    error_401: () => chat(cases.EGG, client.withOptions({ apiKey: cases.BAD_KEY })),
    error_404: () => chat(cases.EGG, client.withOptions({ baseURL: cases.url })),
    error_404_model: () => chat(cases.EGG, client, { model: cases.MISSING_MODEL }),
    error_400: () => chat(cases.EGG, client, { temperature: 99 }),
    error_stream: () => stream(cases.BREAKS_OFF),
    models: async () => (await client.models.list()).data.map((model) => model.id),
    embeddings: async () =>
      Array.from((await client.embeddings.create({ model: 'm', input: 'egg' })).data[0].embedding, (value) =>
        Number(value.toFixed(3)),
      ),
  },
  'openai',
);
