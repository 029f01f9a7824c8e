// Modules that verify JWTs with the key set, unmodified: each takes an access token and refuses the refresh
// token that came with it. e2e/oauth/run calls it with the file that names the server and its clients.
import { readFileSync } from 'node:fs'
import { auth } from 'express-oauth2-jwt-bearer'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import * as oauth4webapi from 'oauth4webapi'

const { url, app, algorithm } = JSON.parse(readFileSync(process.argv[2]))
const audience = 'https://api.example'
const jwksUri = `${url}/.well-known/jwks.json`

let failed = 0
function check(what, good, got) {
  console.log(good ? `ok     modules: ${what}` : `FAILED modules: ${what}: ${got}`)
  failed += good ? 0 : 1
}

async function post(path, body) {
  const headers = { 'Content-Type': 'application/json' }
  const answer = await fetch(`${url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
  return { status: answer.status, body: await answer.json() }
}

const keys = createRemoteJWKSet(new URL(jwksUri))
const found = await oauth4webapi.discoveryRequest(new URL(url), { algorithm: 'oauth2' })
const server = await oauth4webapi.processDiscoveryResponse(new URL(url), found)
const modules = {
  jose: (token) => jwtVerify(token, keys, { issuer: url, audience, typ: 'at+jwt' }),
  // RFC 9068, with every claim that it requires.
  oauth4webapi: (token) => {
    const headers = { authorization: `Bearer ${token}` }
    return oauth4webapi.validateJwtAccessToken(server, new Request(`${audience}/orders`, { headers }), audience)
  },
}
// It does not know this name.
if (algorithm !== 'Ed25519') {
  // strict: RFC 9068 as well.
  const middleware = auth({ issuer: url, jwksUri, audience, tokenSigningAlg: algorithm, strict: true })
  modules['express-oauth2-jwt-bearer, strict'] = (token) =>
    new Promise((resolve, reject) => {
      // What express would hand it.
      const headers = { host: 'api.example', authorization: `Bearer ${token}` }
      const get = (name) => headers[name.toLowerCase()]
      const request = { method: 'GET', protocol: 'https', originalUrl: '/', headers, query: {}, body: {}, get, is: () => false }
      middleware(request, {}, (error) => (error ? reject(error) : resolve()))
    })
}
for (const [module, verify] of Object.entries(modules)) {
  const name = `${algorithm}: ${module}`
  const { body } = await post('/auth/login', { username: app.api_key, password: app.api_secret })
  const outcome = (token) => verify(token).then(() => 'taken', String)
  const access = await outcome(body.data.access_token)
  check(`${name} takes an access token`, access === 'taken', access)
  const refresh = await outcome(body.data.refresh_token)
  check(`${name} refuses a refresh token`, refresh !== 'taken', refresh)
  const { status } = await post('/auth/refresh', { refresh_token: body.data.refresh_token })
  check(`${name}: which is a good one`, status === 200, status)
}
process.exit(failed === 0 ? 0 : 1)
