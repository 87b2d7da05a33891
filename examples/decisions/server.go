package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// signingKey signs URLs. A real one is a secret of the server.
var signingKey = []byte("an example")

// sign returns the signature of a path until a time, in seconds since 1970.
func sign(path, until string) string {
	mac := hmac.New(sha256.New, signingKey)
	mac.Write([]byte(path + "\n" + until))
	return hex.EncodeToString(mac.Sum(nil))
}

// signed returns the URL of a file that counts until a time.
func signed(path string, until time.Time) string {
	end := strconv.FormatInt(until.Unix(), 10)
	return path + "?until=" + end + "&signature=" + sign(path, end)
}

// newServer returns the server that decides: it answers questions of sluice.
func newServer() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/tenant", decideTenant)
	mux.HandleFunc("/user", decideUser)
	mux.HandleFunc("/signed", decideSigned)
	return mux
}

// tenants are the tenants by the keys of their clients.
var tenants = map[string]string{"key-of-acme": "acme", "key-of-zoo": "zoo"}

func decideTenant(w http.ResponseWriter, r *http.Request) {
	tenant, known := tenants[r.Header.Get("X-Api-Key")]
	if !known {
		http.Error(w, "want a key in X-Api-Key", http.StatusUnauthorized)
		return
	}
	w.Header().Set("X-Tenant", tenant)
	w.Header().Set("X-Sluice-Service", tenant)
	w.Header().Set("Cache-Control", "max-age=60")
}

// decideUser gives the canary to users whose name begins with a "b".
func decideUser(w http.ResponseWriter, r *http.Request) {
	user, _, ok := r.BasicAuth()
	if !ok {
		w.Header().Set("WWW-Authenticate", `Basic realm="shop"`)
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	group := "rest"
	if user != "" && user[0] == 'b' {
		group = "canary"
	}
	w.Header().Set("X-User", user)
	w.Header().Set("X-Sluice-Group", group)
	http.SetCookie(w, &http.Cookie{Name: "seen", Value: user, HttpOnly: true})
}

func decideSigned(w http.ResponseWriter, r *http.Request) {
	u, err := url.ParseRequestURI(r.Header.Get("X-Forwarded-Uri"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	until, _ := strconv.ParseInt(u.Query().Get("until"), 10, 64)
	if !hmac.Equal([]byte(u.Query().Get("signature")), []byte(sign(u.EscapedPath(), u.Query().Get("until")))) || time.Now().Unix() >= until {
		http.Error(w, "the link is wrong or has ended", http.StatusForbidden)
		return
	}
	w.Header().Set("X-Sluice-Path", u.EscapedPath()+"?")
}
