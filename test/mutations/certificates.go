package main

var certificatesFaults = []mutation{
	{
		name: "expired-certificate-replaces-a-valid-one",
		file: "certificates/collection.go",
		old:  "h.certificate != nil && validity(h.chain, now) == nil {\n\t\treturn false",
		new:  "h.certificate == nil {\n\t\treturn false",
		test: "./certificates TestCollectionKeepsWhatIsValid",
	},
	{
		name: "deleted-certificate-ends-at-once",
		file: "certificates/collection.go",
		old:  "now.Sub(h.goneSince) >= discovery.Stay || now.After",
		new:  "!now.Before(h.goneSince) || now.After",
		test: "./certificates TestCollectionKeepsWhatIsValid|TestCollectionWithoutKeys",
	},
	{
		name: "file-that-ends-within-a-certificate-is-used",
		file: "certificates/files.go",
		old:  `return bytes.Contains(data, []byte("-----BEGIN"))`,
		new:  `return bytes.Contains(data, []byte("-----BEGIN")) && len(data) == 0`,
		test: "./certificates TestFilesThatCannotBeUsed",
	},
	{
		name: "encrypted-value-moves-to-another-name",
		file: "certificates/cipher.go",
		old:  "key.Open(nil, nil, encrypted, []byte(name)); err == nil",
		new:  "key.Open(nil, nil, encrypted, []byte(name)); err == nil || len(encrypted) > 0",
		test: "./certificates TestCipher",
	},
	{
		name: "private-key-is-stored-in-plain-text",
		file: "certificates/acme/consul.go",
		old:  "Value: s.cipher.Seal(key, value), Flags",
		new:  "Value: value, Flags",
		test: "./certificates/acme TestEncryptionInConsul|TestManagerEncrypts",
	},
	{
		name: "certificate-with-another-key-is-used",
		file: "certificates/acme/storage.go",
		old:  "if misfit == nil {",
		new:  "if misfit == nil || len(value) > 0 {",
		test: "./certificates/acme TestMisfitsAreAbsent",
	},
}
