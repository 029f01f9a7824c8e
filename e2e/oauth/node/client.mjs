// openid-client and jose, unmodified, against a running server. e2e/oauth/run calls it with the file
// that names the server and its clients.
import { readFileSync } from 'node:fs'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import * as client from 'openid-client'

const { url, app, api } = JSON.parse(readFileSync(process.argv[2]))

let failed = 0
function check(what, good, got) {
  console.log(good ? `ok     node: ${what}` : `FAILED node: ${what}: ${JSON.stringify(got)}`)
  failed += good ? 0 : 1
}

/** The error that a promise must end in. */
async function refusal(promise) {
  try {
    return { error: 'none', got: await promise }
  } catch (e) {
    return { error: e.error ?? e.code, status: e.status }
  }
}

/** A client that knows the server's URL, and learns all the rest from its metadata. */
function discovered(of, method, algorithm = 'oauth2') {
  const options = { algorithm, execute: [client.allowInsecureRequests] }
  return client.discovery(new URL(url), of.api_key, of.api_secret, method(of.api_secret), options)
}

const asking = await discovered(api, client.ClientSecretBasic)
check('discovery finds the issuer', asking.serverMetadata().issuer === url, asking.serverMetadata())

const oidc = await discovered(api, client.ClientSecretBasic, 'oidc')
check('discovery as OpenID Connect does it', oidc.serverMetadata().issuer === url, oidc.serverMetadata())

for (const [name, method] of [['basic', client.ClientSecretBasic], ['post', client.ClientSecretPost]]) {
  const config = await discovered(app, method)
  const other = await discovered(api, method)

  const begun = performance.now()
  const token = await client.clientCredentialsGrant(config, { scope: 'orders:read' })
  // No more seconds may be missing than have begun between the request and the answer.
  const least = 3600 - Math.ceil((performance.now() - begun) / 1000)
  const hour = token.token_type === 'bearer' && token.expires_in >= least && token.expires_in <= 3600
  check(`${name}: client_credentials`, hour, token)
  check(`${name}: no refresh token`, !('refresh_token' in token), token)
  check(`${name}: the scope asked for`, token.scope === 'orders:read', token)
  const all = await client.clientCredentialsGrant(config)
  check(`${name}: every scope if none is asked for`, all.scope === 'orders:read orders:write', all)

  const keys = createRemoteJWKSet(new URL(config.serverMetadata().jwks_uri))
  const { payload } = await jwtVerify(token.access_token, keys, { issuer: url, audience: url, typ: 'at+jwt' })
  check(`${name}: jose verifies the token`, payload.sub === String(app.client_id), payload)

  const told = await client.tokenIntrospection(other, token.access_token)
  check(`${name}: introspection: active`, told.active === true && told.client_id === app.api_key, told)
  check(`${name}: introspection: scope`, told.scope === 'orders:read' && told.iss === url, told)
  const unknown = await client.tokenIntrospection(other, 'x')
  check(`${name}: introspection: unknown`, JSON.stringify(unknown) === '{"active":false}', unknown)
  const unasked = await refusal(client.tokenIntrospection(config, token.access_token))
  check(`${name}: introspection needs the scope`, unasked.status === 403, unasked)

  const foreign = await refusal(client.tokenRevocation(other, token.access_token))
  check(`${name}: another's token is not revoked`, foreign.error === 'invalid_grant', foreign)
  await client.tokenRevocation(config, token.access_token, { token_type_hint: 'refresh_token' })
  const after = await client.tokenIntrospection(other, token.access_token)
  check(`${name}: revoked, and inactive at once`, after.active === false, after)
  const beside = await client.tokenIntrospection(other, all.access_token)
  check(`${name}: other tokens stand`, beside.active === true, beside)
  const nothing = await client.tokenRevocation(config, 'x')
  check(`${name}: what is unknown is revoked already`, nothing === undefined, nothing)

  const scope = await refusal(client.clientCredentialsGrant(config, { scope: 'orders:delete' }))
  check(`${name}: invalid_scope`, scope.error === 'invalid_scope' && scope.status === 400, scope)
  const grant = await refusal(client.genericGrantRequest(config, 'password', {}))
  check(`${name}: unsupported_grant_type`, grant.error === 'unsupported_grant_type', grant)
  const wrong = await discovered({ ...app, api_secret: 'rs_wrong' }, method)
  const bad = await refusal(client.clientCredentialsGrant(wrong))
  // The code is in a body that openid-client leaves unread if the answer has a challenge, as it must have for Basic.
  const code = name === 'basic' ? 'OAUTH_WWW_AUTHENTICATE_CHALLENGE' : 'invalid_client'
  check(`${name}: invalid_client`, bad.status === 401 && bad.error === code, bad)
}
process.exit(failed === 0 ? 0 : 1)
