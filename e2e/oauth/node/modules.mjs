// Modules that verify JWTs with the key set, unmodified: each takes an access token and refuses the refresh
// token that came with it. e2e/oauth/run calls it with the file that names the server and its clients.
import { readFileSync } from 'node:fs'
import { auth } from 'express-oauth2-jwt-bearer'
import { createRemoteJWKSet, jwtVerify } from 'jose'

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
const middleware = auth({ issuer: url, jwksUri, audience, tokenSigningAlg: algorithm })
const modules = {
  jose: (token) => jwtVerify(token, keys, { issuer: url, audience }),
  'express-oauth2-jwt-bearer': (token) =>
    new Promise((resolve, reject) => {
      // What express would hand it.
      const headers = { host: 'api.example', authorization: `Bearer ${token}` }
      const get = (name) => headers[name.toLowerCase()]
      const request = { method: 'GET', protocol: 'https', originalUrl: '/', headers, query: {}, body: {}, get, is: () => false }
      middleware(request, {}, (error) => (error ? reject(error) : resolve()))
    }),
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
