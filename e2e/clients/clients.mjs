// Node's OAuth clients, unmodified: what each does when its token was revoked. run.py calls it with the file that names the
// server, an API and a client.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const { url, api, app, lifetime } = JSON.parse(readFileSync(process.argv[2]))
const { api_key: key, api_secret: secret } = app
const tokenUrl = `${url}/oauth2/token`
const require = createRequire(import.meta.url)
// How long before the end of a token a library may look for another.
const EARLY = [60, 30, 20, 10, 0]

// The libraries' clock.
const Real = Date
let ahead = 0
globalThis.Date = class extends Real {
  constructor(...of) {
    super(...(of.length ? of : [Real.now() + ahead * 1000]))
  }
  static now() {
    return Real.now() + ahead * 1000
  }
}

async function ask(token) {
  const answer = await fetch(api, { headers: { Authorization: `Bearer ${token}` } })
  await answer.text()
  return answer.status
}

// Each returns `call`, which asks the API and returns the status, and `recipe`, a line that is run before the next call and has
// the names of `scope`. A library that only fetches tokens is called by the few lines that its documentation has for it.
const clients = {
  async '@badgateway/oauth2-client'() {
    const { OAuth2Client, OAuth2Fetch } = await import('@badgateway/oauth2-client')
    const client = new OAuth2Client({ server: url, clientId: key, clientSecret: secret })
    const wrapper = new OAuth2Fetch({ client, getNewToken: () => client.clientCredentials(), scheduleRefresh: false })
    return { call: async () => (await wrapper.fetch(api)).status }
  },
  async 'undici-oidc-interceptor'() {
    const { Agent, request } = await import('undici')
    const { createOidcInterceptor } = require('undici-oidc-interceptor')
    const options = { clientId: key, clientSecret: secret, idpTokenUrl: tokenUrl, urls: [api] }
    const dispatcher = new Agent().compose(createOidcInterceptor(options))
    return {
      async call() {
        const { statusCode, body } = await request(api, { dispatcher })
        await body.text()
        return statusCode
      },
    }
  },
  async 'openid-client'() {
    const client = await import('openid-client')
    const config = await client.discovery(new URL(url), key, secret, undefined, { execute: [client.allowInsecureRequests] })
    const kept = { token: await client.clientCredentialsGrant(config) }
    const call = async () => (await client.fetchProtectedResource(config, kept.token.access_token, new URL(api), 'GET')).status
    return { call, recipe: 'kept.token = await client.clientCredentialsGrant(config)', scope: { client, config, kept } }
  },
  async oauth4webapi() {
    const oauth = await import('oauth4webapi')
    const insecure = { [oauth.allowInsecureRequests]: true }
    const issuer = new URL(url)
    const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, insecure))
    const client = { client_id: key }
    const fetchToken = async () => {
      const authentication = oauth.ClientSecretPost(secret)
      const answer = await oauth.clientCredentialsGrantRequest(server, client, authentication, {}, insecure)
      return oauth.processClientCredentialsResponse(server, client, answer)
    }
    const kept = { token: await fetchToken() }
    const call = async () =>
      (await oauth.protectedResourceRequest(kept.token.access_token, 'GET', new URL(api), undefined, undefined, insecure)).status
    return { call, recipe: 'kept.token = await fetchToken()', scope: { kept, fetchToken } }
  },
  async 'simple-oauth2'() {
    const { ClientCredentials } = require('simple-oauth2')
    const auth = { tokenHost: url, tokenPath: '/oauth2/token', revokePath: '/oauth2/revoke' }
    const client = new ClientCredentials({ client: { id: key, secret }, auth })
    const kept = { token: await client.getToken({}) }
    const call = async () => {
      if (kept.token.expired()) kept.token = await client.getToken({})
      return ask(kept.token.token.access_token)
    }
    // It reads the answer as JSON.
    await (await client.getToken({})).revoke('access_token')
    return { call, recipe: 'kept.token = await client.getToken({})', scope: { client, kept } }
  },
  async 'client-oauth2'() {
    const ClientOAuth2 = require('client-oauth2')
    const client = new ClientOAuth2({ clientId: key, clientSecret: secret, accessTokenUri: tokenUrl })
    const kept = { token: await client.credentials.getToken() }
    const call = async () => {
      if (kept.token.expired()) kept.token = await client.credentials.getToken()
      const { headers } = kept.token.sign({ method: 'get', url: api })
      const answer = await fetch(api, { headers })
      return answer.status
    }
    return { call, recipe: 'kept.token = await client.credentials.getToken()', scope: { client, kept } }
  },
  async 'axios-token-interceptor'() {
    const axios = require('axios')
    const { clientCredentials } = await import('axios-oauth-client')
    const tokens = require('axios-token-interceptor')
    const get = clientCredentials(axios.create(), tokenUrl, key, secret)
    const cache = tokens.tokenCache(() => get(), { getMaxAge: (body) => body.expires_in * 1000 })
    const instance = axios.create()
    instance.interceptors.request.use(
      tokens({ getToken: cache, headerFormatter: (body) => `Bearer ${body.access_token}` }),
    )
    return { call: async () => (await instance.get(api)).status, recipe: 'cache.reset()', scope: { cache } }
  },
  async '@hapic/oauth2'() {
    const { OAuth2Client } = await import('@hapic/oauth2')
    const client = new OAuth2Client({ options: { clientId: key, clientSecret: secret, tokenEndpoint: tokenUrl } })
    return { call: async () => ask((await client.token.createWithClientCredentials()).access_token) }
  },
  async '@modelcontextprotocol/sdk'() {
    const { ClientCredentialsProvider } = await import('@modelcontextprotocol/sdk/client/auth-extensions.js')
    const { withOAuth } = await import('@modelcontextprotocol/sdk/client/middleware.js')
    const provider = new ClientCredentialsProvider({ clientId: key, clientSecret: secret, expectedIssuer: url })
    const withToken = withOAuth(provider, `${api}/mcp`)(fetch)
    return { call: async () => (await withToken(`${api}/mcp`)).status }
  },
}
const version = (name) => JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version
const labels = {
  'axios-token-interceptor': `axios-oauth-client ${version('axios-oauth-client')}, axios-token-interceptor`,
  '@modelcontextprotocol/sdk': 'MCP TypeScript SDK',
}

async function logOut() {
  const headers = { 'Content-Type': 'application/json' }
  const login = await fetch(`${url}/auth/login`, { method: 'POST', headers, body: JSON.stringify({ username: key, password: secret }) })
  const token = (await login.json()).data.access_token
  const answer = await fetch(`${url}/auth/logout`, { method: 'POST', headers: { Authorization: `Bearer ${token}` } })
  if (answer.status !== 200) throw new Error(`logout: ${answer.status}`)
}

/** How many tokens the API has seen. */
async function seen() {
  return (await (await fetch(`${api}/seen`)).json()).tokens
}

async function passes(call, seconds = 0) {
  ahead = seconds
  try {
    return (await call()) === 200
  } catch {
    return false
  } finally {
    ahead = 0
  }
}

/** What a client does whose token was revoked. */
async function measure(call) {
  if (!(await passes(call))) throw new Error(`it does not work at all: ${await call()}`)
  const before = await seen()
  await passes(call)
  await passes(call)
  if ((await seen()) === before + 2) return 'keeps no token: asks for one before each call'
  await logOut()
  if (await passes(call)) return 'recovers on the same call'
  if (await passes(call)) return 'recovers on the next call'
  for (const early of EARLY) {
    if (await passes(call, lifetime - early - 5)) throw new Error(`recovers more than ${early} s before the end, at none of the known times`)
    if (await passes(call, lifetime - early + 1)) return early ? `dead until ${early} s before the token expires` : 'dead until the token expires'
  }
  if (await passes(call, lifetime + 3600)) throw new Error('recovers long after the end')
  return 'dead, also when the token has expired'
}

for (const [name, make] of Object.entries(clients)) {
  const label = labels[name] ?? name
  try {
    const { call, recipe = '', scope = {} } = await make()
    const found = await measure(call)
    if (recipe) {
      await logOut()
      const run = new Function(...Object.keys(scope), `return (async () => { ${recipe} })()`)
      await run(...Object.values(scope))
      if (!(await passes(call))) throw new Error('its recipe does not help')
    }
    console.log(JSON.stringify({ label, version: version(name), found, recipe }))
  } catch (error) {
    console.log(JSON.stringify({ label, failed: String(error?.stack ?? error) }))
  }
}
// Agents keep connections open.
process.exit(0)
