// The Vercel AI SDK with its providers openai (Responses and chat), openai-compatible, anthropic and azure.

import { createAnthropic } from '@ai-sdk/anthropic';
import { createAzure } from '@ai-sdk/azure';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embed, generateObject, generateText, jsonSchema, streamText, tool } from 'ai';
import * as cases from './cases.mjs';

const baseURL = `${cases.url}/v1`;
const openai = createOpenAI({ baseURL, apiKey: 'k' });
const compatible = createOpenAICompatible({
  name: 'serac',
  baseURL,
  apiKey: 'k',
  supportsStructuredOutputs: true,
});
const anthropic = createAnthropic({ baseURL, apiKey: 'k' });
const azure = createAzure({ baseURL: `${cases.url}/openai`, apiKey: 'k', apiVersion: '2024-10-21', useDeploymentBasedUrls: true });
const models = {
  '': openai.chat('m'),
  _responses: openai('m'),
  _completions: openai.completion('m'),
  _compatible: compatible('m'),
  _messages: anthropic('m'),
  _azure: azure.chat('m'),
};
const weather = tool({
  description: 'The weather',
  inputSchema: jsonSchema(cases.PARAMETERS),
});

const ask = async (model, text, more = {}) => (await generateText({ model, prompt: text, maxRetries: 0, ...more })).text;

const stream = async (model, text) => {
  let failure;
  const result = streamText({ model, prompt: text, maxRetries: 0, onError: ({ error }) => (failure = error) });
  const seen = await cases.joined(result.textStream);
  if (failure) throw failure instanceof Error ? failure : Object.assign(new Error(JSON.stringify(failure)), { name: 'streamed' });
  return seen;
};

const argumentsOf = async (model) =>
  (await generateText({ model, prompt: cases.WEATHER, tools: { get_weather: weather }, maxRetries: 0 })).toolCalls[0]
    .input;

const streamedArguments = async (model) =>
  (await streamText({ model, prompt: cases.WEATHER, tools: { get_weather: weather }, maxRetries: 0 }).toolCalls)[0]
    .input;

const structured = async (model, text) =>
  (await generateObject({ model, prompt: text, schema: jsonSchema(cases.SCHEMA), maxRetries: 0 })).object;

const list = {};
for (const [suffix, model] of Object.entries(models)) {
  Object.assign(list, cases.askEach((text) => ask(model, text), suffix));
  Object.assign(list, cases.askEach((text) => stream(model, text), `${suffix}_stream`));
  if (suffix === '_completions') continue;
  list[`tools${suffix}`] = () => argumentsOf(model);
  list[`tools${suffix}_stream`] = () => streamedArguments(model);
}

await cases.report(
  {
    ...list,
    edited_tools: () => ask(models[''], cases.MAYOR, { tools: { get_weather: weather } }),
    structured: () => structured(models[''], cases.EGG),
    structured_compatible: () => structured(models._compatible, cases.EGG),
    structured_responses: () => structured(models._responses, cases.EGG),
    suppressed_structured: () => structured(models[''], cases.PASSWORD),
    error_401: () => ask(createOpenAI({ baseURL, apiKey: cases.BAD_KEY }).chat('m'), cases.EGG),
    error_401_messages: () => ask(createAnthropic({ baseURL, apiKey: cases.BAD_KEY })('m'), cases.EGG),
    error_404: () => ask(createOpenAI({ baseURL: cases.url, apiKey: 'k' }).chat('m'), cases.EGG),
    error_404_model: () => ask(openai.chat(cases.MISSING_MODEL), cases.EGG),
    error_400: () => ask(openai.chat('m'), cases.EGG, { temperature: 99 }),
    error_stream: () => stream(models[''], cases.BREAKS_OFF),
    error_stream_messages: () => stream(models._messages, cases.BREAKS_OFF),
    embeddings: async () => (await embed({ model: openai.embedding('m'), value: 'egg' })).embedding,
  },
  'ai',
  '@ai-sdk/openai',
  '@ai-sdk/openai-compatible',
  '@ai-sdk/anthropic',
  '@ai-sdk/azure',
);
