package nbdsrv_test

import (
	"crypto/tls"
	"slices"
	"testing"

	"cawrm/nbdsrv"
)

// TestAdmit ensures that a client sees, and may change, only what an export lets it: in every way to ask for it.
func TestAdmit(t *testing.T) {
	id := newIdentity(t)
	cfg := id.server()
	cfg.ClientCAs, cfg.ClientAuth = id.pool, tls.VerifyClientCertIfGiven
	exports := two()
	byName := func(c nbdsrv.Client) nbdsrv.Access {
		if slices.Contains(c.Names, "localhost") {
			return nbdsrv.FullAccess
		}
		return nbdsrv.NoAccess
	}
	exports[0].Admit = byName
	exports[1].Admit = func(nbdsrv.Client) nbdsrv.Access { return nbdsrv.ReadOnly }
	h := serve(t, nbdsrv.Config{TLS: cfg, Finder: &shelf{held: map[string]int{}}}, exports...)
	with := func(certs ...tls.Certificate) func() *client {
		return func() *client {
			c := h.connect(3)
			c.upgrade(&tls.Config{RootCAs: id.pool, ServerName: "localhost", Certificates: certs})
			return c
		}
	}
	for name, connect := range map[string]func() *client{
		"in the clear": func() *client { return h.connect(3) }, "without a certificate": with(),
	} {
		c := connect()
		for _, name := range []string{"alpha", "alpha@one"} {
			c.refused(errUnknown, optInfo, infoRequest(name))
			c.refused(errUnknown, optGo, infoRequest(name))
		}
		if r := c.option(optList, nil); len(r) != 2 {
			t.Errorf("%s: %d replies to LIST, want the one export and the end", name, len(r))
		}
		c.ack(optStructured, nil)
		c.refused(errUnknown, optSetMeta, metaQuery("alpha", "base:allocation"))
		c.mode = structured
		c.enter("") // the first that it may see
		c.read(0, 512)
		c.must(eperm, req{typ: cmdWrite, length: 512, payload: make([]byte, 512)})
		c.must(eperm, req{typ: cmdTrim, length: 512})

		c = connect()
		c.send(optionBytes(optExportName, []byte("alpha")))
		c.closed()
	}
	c := with(id.cert)()
	if r := c.option(optList, nil); len(r) != 5 {
		t.Errorf("%d replies to LIST", len(r))
	}
	c.negotiate(structured, "alpha")
	c.write(0, []byte("allowed"), 0)
}
