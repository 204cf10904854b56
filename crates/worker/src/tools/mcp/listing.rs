//! What tools a server has.

use super::{Asked, McpTool, Server, take, wire::Message};
use crate::outcome::{Code, Failure};
use domain::{tool::MAX_SCHEMA_BYTES, upstream::MAX_DESCRIPTION};
use proto::v1;
use serde_json::{Value, json};

/// The most tools that are told of: from so many the tenant's patterns choose.
const MAX_TOOLS: usize = 1000;
/// The most that they are together, bytes: they travel in one message.
const MAX_BYTES: usize = 3 << 20;
/// The most pages that are asked for.
const MAX_PAGES: usize = 50;
/// The longest name that is told, bytes; a longer one could not be offered.
const MAX_NAME: usize = 256;
/// The longest cursor that is sent back, bytes.
const MAX_CURSOR: usize = 4096;

/// A server's tools, and what it says of itself.
pub type Listing = v1::ListUpstreamToolsResponse;

impl McpTool {
    /// Asks a server for its tools, whether or not it is left alone; when it answers, it is not any more.
    ///
    /// # Errors
    /// [`Failure`]
    pub(in crate::tools) async fn list(&self, server: &Server<'_>) -> Result<Listing, Failure> {
        let peer = self.peers.of(server);
        let visit = peer.knock();
        let listed = self.pages(server, &peer).await;
        visit.end(listed.as_ref().err());
        listed
    }

    async fn pages(&self, server: &Server<'_>, peer: &super::Peer) -> Result<Listing, Failure> {
        let (mut listing, mut size) = (Listing::default(), 0);
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let params = cursor.map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
            let message = Message::new(peer.next_id(), "tools/list", params);
            let (mut page, link) = self.ask(server, peer, &message, &Asked::plain()).await?;
            listing.server.clone_from(&link.about.name);
            listing.server_version.clone_from(&link.about.version);
            link.era.version().clone_into(&mut listing.protocol_version);
            let Value::Array(tools) = take(&mut page, "tools") else {
                return Err(Failure::new(Code::InvalidResponse, "the server lists no tools"));
            };
            for tool in tools {
                let tool = told(tool);
                let bytes = size_of(&tool);
                if listing.tools.len() >= MAX_TOOLS || size + bytes > MAX_BYTES {
                    listing.left_out += 1;
                } else {
                    size += bytes;
                    listing.tools.push(tool);
                }
            }
            cursor = page["nextCursor"]
                .as_str()
                .map(str::to_owned)
                .filter(|c| c.len() <= MAX_CURSOR);
            if cursor.is_none() {
                return Ok(listing);
            }
            if listing.left_out > 0 {
                break;
            }
        }
        // There are more on pages that were not asked for.
        listing.left_out = listing.left_out.max(1);
        Ok(listing)
    }
}

/// A tool as the server lists it, cut to what is of use.
fn told(mut tool: Value) -> v1::UpstreamTool {
    let cut = |text: &Value, most: usize| {
        let text = text.as_str()?;
        Some(text.chars().take(most).collect::<String>())
    };
    let hints = &tool["annotations"];
    let title = cut(&tool["title"], MAX_DESCRIPTION).or_else(|| cut(&hints["title"], MAX_DESCRIPTION));
    let says = |hint: &str| hints[hint] == Value::Bool(true);
    let (read_only, destructive, idempotent) = (
        says("readOnlyHint"),
        says("destructiveHint"),
        says("idempotentHint"),
    );
    let schema = match take(&mut tool, "inputSchema") {
        schema @ Value::Object(_) => schema.to_string(),
        _ => String::new(),
    };
    v1::UpstreamTool {
        name: cut(&tool["name"], MAX_NAME).unwrap_or_default(),
        title,
        // One more than is kept, so that it shows that it was cut.
        description: cut(&tool["description"], MAX_DESCRIPTION + 1),
        input_schema_json: Some(schema)
            .filter(|s| s.len() <= MAX_SCHEMA_BYTES)
            .unwrap_or_default(),
        read_only,
        destructive,
        idempotent,
    }
}

fn size_of(tool: &v1::UpstreamTool) -> usize {
    let texts = [tool.title.as_ref(), tool.description.as_ref()];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    tool.name.len() + texts + tool.input_schema_json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_taken_as_they_are_said() {
        let tool = told(
            json!({"name": "drop", "inputSchema": {"type": "object"}, "annotations": {
            "title": "Drop it", "destructiveHint": true, "readOnlyHint": "yes"}}),
        );
        assert_eq!(
            (tool.destructive, tool.read_only, tool.idempotent),
            (true, false, false)
        );
        assert_eq!(tool.title.as_deref(), Some("Drop it"));
        assert_eq!(tool.input_schema_json, "{\"type\":\"object\"}");
        let odd = told(json!({"name": 7, "inputSchema": [], "description": "ä".repeat(5000)}));
        assert_eq!((odd.name.as_str(), odd.input_schema_json.as_str()), ("", ""));
        assert_eq!(odd.description.unwrap().chars().count(), MAX_DESCRIPTION + 1);
        assert_eq!(told(json!(7)).name, "");
        let wide = json!({"name": "w", "inputSchema": {"x": "y".repeat(MAX_SCHEMA_BYTES)}});
        assert_eq!(told(wide).input_schema_json, "");
    }
}
