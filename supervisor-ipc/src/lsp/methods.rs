//! What a request may be: asked again, asked once, or bound to the process that gave its data.

/// What a restart means for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only reads: may be asked again.
    Read,
    /// Only reads, but its parameters hold data of the process that gave them.
    Bound(Family),
    /// May change something, or nobody knows: is never asked twice.
    Effect,
}

/// Data that means something only to the process that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    CodeAction,
    CodeLens,
    Completion,
    DocumentLink,
    InlayHint,
    CallHierarchy,
    TypeHierarchy,
    WorkspaceSymbol,
}

/// Methods of the protocol that only read, up to revision 3.18.
const READS: &[&str] = &[
    "textDocument/codeAction",
    "textDocument/codeLens",
    "textDocument/colorPresentation",
    "textDocument/completion",
    "textDocument/declaration",
    "textDocument/definition",
    "textDocument/diagnostic",
    "textDocument/documentColor",
    "textDocument/documentHighlight",
    "textDocument/documentLink",
    "textDocument/documentSymbol",
    "textDocument/foldingRange",
    "textDocument/formatting",
    "textDocument/hover",
    "textDocument/implementation",
    "textDocument/inlayHint",
    "textDocument/inlineCompletion",
    "textDocument/inlineValue",
    "textDocument/linkedEditingRange",
    "textDocument/moniker",
    "textDocument/onTypeFormatting",
    "textDocument/prepareCallHierarchy",
    "textDocument/prepareRename",
    "textDocument/prepareTypeHierarchy",
    "textDocument/rangeFormatting",
    "textDocument/rangesFormatting",
    "textDocument/references",
    "textDocument/selectionRange",
    "textDocument/semanticTokens/full",
    "textDocument/semanticTokens/full/delta",
    "textDocument/semanticTokens/range",
    "textDocument/signatureHelp",
    "textDocument/typeDefinition",
    "textDocument/willSaveWaitUntil",
    "workspace/diagnostic",
    "workspace/symbol",
    "workspace/textDocumentContent",
];

/// Judges a request of the client by its method; what is not known may change something.
pub(crate) fn kind(method: &str) -> Kind {
    match method {
        "codeAction/resolve" => Kind::Bound(Family::CodeAction),
        "codeLens/resolve" => Kind::Bound(Family::CodeLens),
        "completionItem/resolve" => Kind::Bound(Family::Completion),
        "documentLink/resolve" => Kind::Bound(Family::DocumentLink),
        "inlayHint/resolve" => Kind::Bound(Family::InlayHint),
        "workspaceSymbol/resolve" => Kind::Bound(Family::WorkspaceSymbol),
        "callHierarchy/incomingCalls" | "callHierarchy/outgoingCalls" => {
            Kind::Bound(Family::CallHierarchy)
        }
        "typeHierarchy/supertypes" | "typeHierarchy/subtypes" => Kind::Bound(Family::TypeHierarchy),
        method if READS.binary_search(&method).is_ok() => Kind::Read,
        _ => Kind::Effect,
    }
}

/// Tells whether a request is known to change something, so that a person would not want it carried out much later.
pub(crate) fn known_effect(method: &str) -> bool {
    method == "workspace/executeCommand"
        || method == "textDocument/rename"
        || method.starts_with("workspace/will")
}

/// Tells which data an answer to this method renews.
pub(crate) fn renews(method: &str) -> Option<Family> {
    Some(match method {
        "textDocument/codeAction" => Family::CodeAction,
        "textDocument/codeLens" => Family::CodeLens,
        "textDocument/completion" => Family::Completion,
        "textDocument/documentLink" => Family::DocumentLink,
        "textDocument/inlayHint" => Family::InlayHint,
        "textDocument/prepareCallHierarchy" => Family::CallHierarchy,
        "textDocument/prepareTypeHierarchy" => Family::TypeHierarchy,
        "workspace/symbol" => Family::WorkspaceSymbol,
        _ => return None,
    })
}

/// The client's request was cancelled.
pub(crate) const REQUEST_CANCELLED: i64 = -32800;
/// The content the request was about is another by now; clients stay quiet.
pub(crate) const CONTENT_MODIFIED: i64 = -32801;
/// The server ended the request; only for methods that say they may be.
pub(crate) const SERVER_CANCELLED: i64 = -32802;
/// The request failed.
pub(crate) const REQUEST_FAILED: i64 = -32803;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        assert!(READS.is_sorted());
        assert_eq!(kind("textDocument/hover"), Kind::Read);
        assert_eq!(kind("workspace/executeCommand"), Kind::Effect);
        assert_eq!(kind("textDocument/rename"), Kind::Effect);
        assert_eq!(kind("my/own"), Kind::Effect);
    }
}
