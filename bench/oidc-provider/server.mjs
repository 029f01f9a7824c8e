// node server.mjs PORT CLIENT_ID CLIENT_SECRET: an oidc-provider that issues, introspects and revokes tokens of one
// client. The features, keys and cookies are set as its documentation recommends. Its store is the one that comes with
// it, in memory: nothing is durable, and no other store could be faster.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { Provider } from 'oidc-provider';

const [port, client_id, client_secret] = process.argv.slice(2);
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id, client_secret,
    grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
    id_token_signed_response_alg: 'ES256',
  }],
  cookies: { keys: [randomBytes(32).toString('hex')] },
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256' }] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    revocation: { enabled: true },
  },
  ttl: { ClientCredentials: 3600 },
});

provider.listen(Number(port), '127.0.0.1');
