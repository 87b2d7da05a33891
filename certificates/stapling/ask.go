package stapling

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// errRevoked is the answer that a certificate is revoked.
var errRevoked = errors.New("its authority has revoked it")

// ask asks the first responder that a certificate names. The answer was checked.
func (m *Manager) ask(ctx context.Context, leaf, issuer *x509.Certificate) ([]byte, *ocsp.Response, error) {
	select {
	case m.places <- struct{}{}:
		defer func() { <-m.places }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	to, err := url.Parse(leaf.OCSPServer[0])
	if err != nil || to.Scheme != "http" || to.Host == "" || to.User != nil {
		return nil, nil, fmt.Errorf("the responder %q is no URL for HTTP", leaf.OCSPServer[0])
	}
	question, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return nil, nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(question))
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Content-Type", "application/ocsp-request")
	response, err := m.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s: status %d", to, response.StatusCode)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("%s: %w", to, err)
	case len(answer) > maxAnswer:
		return nil, nil, fmt.Errorf("%s: the answer has more than %d bytes", to, maxAnswer)
	}
	parsed, err := check(answer, leaf, issuer, m.now())
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", to, err)
	}
	return answer, parsed, nil
}

// check returns the answer about a certificate, if it says that the certificate is good and clients accept that at a time:
// the authority, or who may answer for it, has signed it.
func check(answer []byte, leaf, issuer *x509.Certificate, now time.Time) (*ocsp.Response, error) {
	r, err := ocsp.ParseResponseForCert(answer, leaf, issuer)
	if err != nil {
		return nil, err
	}
	if by := r.Certificate; by != nil && !by.Equal(issuer) {
		switch {
		case !slices.Contains(by.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
			return nil, errors.New("who has signed the answer may not answer for the authority")
		case now.Before(by.NotBefore) || now.After(by.NotAfter):
			return nil, errors.New("the certificate of who has signed the answer is not valid now")
		}
	}
	switch {
	case r.Status == ocsp.Revoked:
		return nil, fmt.Errorf("%w at %s", errRevoked, r.RevokedAt.UTC().Format(time.RFC3339))
	case r.Status != ocsp.Good:
		return nil, errors.New("its authority does not know it")
	case r.NextUpdate.IsZero():
		return nil, errors.New("the answer does not say until when it is valid")
	case now.Before(r.ThisUpdate):
		return nil, fmt.Errorf("the answer is not valid before %s", r.ThisUpdate.UTC().Format(time.RFC3339))
	case !now.Before(r.NextUpdate):
		return nil, fmt.Errorf("the answer has expired at %s", r.NextUpdate.UTC().Format(time.RFC3339))
	}
	if by := r.Certificate; by != nil && by.NotAfter.Before(r.NextUpdate) {
		r.NextUpdate = by.NotAfter // clients do not accept it for longer
	}
	return r, nil
}

// refreshAt returns when an answer is asked for again: in the middle of its time.
func refreshAt(r *ocsp.Response) time.Time {
	return r.ThisUpdate.Add(r.NextUpdate.Sub(r.ThisUpdate) / 2)
}

var (
	featuresID    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24} // RFC 7633
	statusRequest = 5                                                 // the TLS extension
)

// Required reports whether clients may refuse a certificate without a staple ("must staple", RFC 7633).
func Required(leaf *x509.Certificate) bool {
	for _, e := range leaf.Extensions {
		var features []int
		if e.Id.Equal(featuresID) {
			_, err := asn1.Unmarshal(e.Value, &features)
			return err == nil && slices.Contains(features, statusRequest)
		}
	}
	return false
}
