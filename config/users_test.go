package config

import "testing"

// Users are in a file or listed, and a line of a list that cannot be read is not shown.
func TestWrongUsersOfRoutes(t *testing.T) {
	for users, want := range map[string]string{
		"{}":                  "routes[0].basic_auth: want one of users_file and users",
		"{ users: [] }":       "routes[0].basic_auth: want one of users_file and users",
		"{ users: [ann] }":    "routes[0].basic_auth.users: line 1: want NAME:HASH",
		"{ users: ['a:b'] }":  "routes[0].basic_auth.users: line 1: want a password hashed by bcrypt",
		"{ users: ['#a:b'] }": "routes[0].basic_auth.users: has no users",
		"{ users_file: /users, users: ['ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ='] }": "routes[0].basic_auth: want one of users_file and users",
	} {
		refuses(t, oneService+"routes: [{ service: star, basic_auth: "+users+" }]", want)
	}
}
