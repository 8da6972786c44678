//! TLS with client certificates: a server that accepts only clients with a certificate of its authority, and tells each
//! client the size of its certificate; and a client that presents one.
//!
//! ```text
//! cargo run -p sockeye --example client_certificate -- serve 127.0.0.1:9443 server.pem server.key ca.pem
//! cargo run -p sockeye --example client_certificate -- connect wss://localhost:9443/ me.pem me.key ca.pem
//! ```

use std::error::Error;
use std::fs;
use std::sync::Arc;

use sockeye::rustls::pki_types::pem::PemObject;
use sockeye::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sockeye::rustls::server::WebPkiClientVerifier;
use sockeye::rustls::{RootCertStore, ServerConfig, crypto::ring};
use sockeye::{Client, ClientTls, CloseCode, Server};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", address, chain, key, authority] => serve(address, chain, key, authority).await,
        ["connect", url, chain, key, authority] => connect(url, chain, key, authority).await,
        _ => Err("arguments: serve ADDRESS CHAIN KEY CA, or connect URL CHAIN KEY CA".into()),
    }
}

async fn connect(url: &str, chain: &str, key: &str, authority: &str) -> Result<(), Box<dyn Error>> {
    let tls = ClientTls::new()
        .without_roots() // only the authority of this company
        .trust_pem(fs::read(authority)?)
        .client_certificate_pem(fs::read(chain)?, fs::read(key)?);
    let mut ws = Client::builder().tls(tls).build()?.connect(url).await?;
    ws.send("who am I?").await?;
    if let Some(message) = ws.recv().await? {
        println!("{}", message.as_text().unwrap_or_default());
    }
    ws.close(CloseCode::NORMAL, "").await?;
    Ok(())
}

async fn serve(address: &str, chain: &str, key: &str, authority: &str) -> Result<(), Box<dyn Error>> {
    let provider = Arc::new(ring::default_provider());
    let mut authorities = RootCertStore::empty();
    authorities.add(CertificateDer::from_pem_file(authority)?)?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone()).build()?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(chain)?.collect();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain?, PrivateKeyDer::from_pem_file(key)?)?;

    let listener = TcpListener::bind(address).await?;
    println!("listening on wss://{}/", listener.local_addr()?);
    let server = Server::builder().tls_config(Arc::new(config)).build();
    server
        .serve(listener)
        .on_error(|error| eprintln!("{error}"))
        .run(|incoming| async move {
            let mut ws = incoming.accept().await?;
            // The verifier has checked it. A program with accounts would look it up, by its hash or its subject.
            let size = ws.peer_certificates().map_or(0, |chain| chain[0].len());
            while ws.recv().await?.is_some() {
                ws.send(format!("you are the owner of a certificate of {size} bytes"))
                    .await?;
            }
            Ok(())
        })
        .await;
    Ok(())
}
