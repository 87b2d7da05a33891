package auth

import (
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sluice/config/units"
	"sluice/discovery/locality"
	"sluice/route/places"
	"sluice/test/verify"
)

// The examples of the standards, which no program of these tests has made: tokens and keys of RFC
// 7515, appendices A.2 to A.4, and RFC 8037, appendices A.2 and A.4. Two have a text in place of
// claims, which is found only after the signature.
func TestExamplesOfTheStandards(t *testing.T) {
	const (
		claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
		set    = `{"keys":[
{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"},
{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"},
{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
	)
	r := rulesOf(t, set)
	r.Issuer, r.Audiences, r.Leeway = "joe", nil, 0
	r.Algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES512, jose.EdDSA}
	r.Require = []Requirement{{NameClaim("http://example.com/is_root"), []string{"true"}}}
	const expiry = 1300819380
	for _, test := range []struct{ algorithm, token, want string }{
		{"RS256", "eyJhbGciOiJSUzI1NiJ9." + claims + ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw", ""},
		{"ES256", "eyJhbGciOiJFUzI1NiJ9." + claims + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q", ""},
		{"ES512", "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn", "its claims are malformed"},
		{"EdDSA", "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg", "its claims are malformed"},
	} {
		ask := func(token string, at int64) string {
			if _, err := r.Check([]byte(token), time.Unix(at, 0), places.Many, never); err != nil {
				return err.Error()
			}
			return ""
		}
		verify.Equal(t, ask(test.token, expiry), test.want, "%s", test.algorithm)
		if test.want == "" {
			verify.Equal(t, ask(test.token, expiry+1), "it has expired", "%s", test.algorithm)
		}
		other := []byte(test.token)
		other[len(other)/2]++ // a letter of the signature, or of what is signed
		verify.Equal(t, ask(string(other), expiry), "its signature is wrong", "%s, changed", test.algorithm)
	}
}

// The keys of an issuer by HTTPS are read if its certificate is one that sluice trusts, else there
// are none.
func TestIssuerByHTTPS(t *testing.T) {
	issuer := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(setOf("ec"))) }))
	issuer.Config.ErrorLog = log.New(io.Discard, "", 0) // of failed handshakes
	issuer.StartTLS()
	defer issuer.Close()
	for trusted, want := range map[bool]string{false: "unknown", true: "good"} {
		r := rulesOf(t, setOf("ec"))
		r.Keys = NewKeys(units.NewLocation(issuer.URL), locality.ByOperator, SavedKeys{})
		if trusted {
			transport := r.Keys.client.Transport.(*http.Transport)
			transport.TLSClientConfig = issuer.Client().Transport.(*http.Transport).TLSClientConfig
		}
		r.Keys.Start(t.Context())
		defer r.Keys.Close()
		r.Keys.Await(t.Context())
		_, err := r.Check(tokenBy(t, "ec"), noon, places.Many, never)
		verify.Equal(t, kindOf(err), want, "trusted: %t", trusted)
		why := r.Keys.Status().Err
		verify.That(t, (why == nil) == trusted && (trusted || strings.Contains(why.Error(), x509.UnknownAuthorityError{}.Error())), "trusted: %t: %v", trusted, why)
	}
}
